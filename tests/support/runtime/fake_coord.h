/*
 * The coordination without Redis, in the test's hand: admissions, permits and what is written wait
 * until the test answers them. Replaces coord*.c, claim.c and permit.c at link time. It keeps the
 * promises of claim.h and permit.h (callbacks come from the test's calls alone, a lost claim is
 * told once) and ends the test when a user breaks one: an admission or permit left behind, an op of
 * a job that is gone.
 */
#ifndef TESTS_SUPPORT_FAKE_COORD_H
#define TESTS_SUPPORT_FAKE_COORD_H

#include "common/claim.h"

enum fake_op_type {
    FAKE_DONE,
    FAKE_STREAM,
    FAKE_END,
    FAKE_ENDED,
    FAKE_GIVE_BACK,
    FAKE_COOL_DOWN,
    FAKE_HEAL,
    FAKE_OPS
};

struct fake_op {
    struct sl_list node;
    enum fake_op_type type;
    char id[80];
    uint64_t fence;
    struct sl_buf ending;
    uint32_t ms;         /* Of a cool-down. */
    const char *outcome; /* Of an ending, */
    int32_t partition;   /* and where its result is. */
    int64_t offset;
    void (*cb)(void *ctx, int err);
    void *ctx;
};

/* --- admissions, by the job's id --- */

/* That waits for its verdict; NULL: none. */
struct sl_admission *fake_waiting(const char *id);
size_t fake_waiting_count(void);
struct sl_admission *fake_nth_waiting(size_t i);
/* bits: the permits that are granted with it. The fence is one more than the last. */
void fake_verdict(struct sl_admission *admission, enum sl_verdict verdict, uint32_t attempt,
                  unsigned bits, struct sl_span ending);
/* Two of its owners died: it waits until it may run. */
void fake_suspect(struct sl_admission *admission);
/* Whether sl_admit_hold lets it be granted now. */
bool fake_may_run(const struct sl_admission *admission);
size_t fake_parked_count(void);
struct sl_admission *fake_parked(size_t i);
void fake_retry(struct sl_admission *admission); /* Parked: it may ask again. */
size_t fake_granted_count(void);
struct sl_admission *fake_granted(size_t i);
struct sl_admission *fake_granted_to(const char *id);
void fake_cancel(struct sl_admission *admission);
void fake_lose(struct sl_admission *admission);

/* --- what is written --- */

size_t fake_op_count(enum fake_op_type type); /* Not answered yet. */
struct fake_op *fake_op(enum fake_op_type type, size_t i);
void fake_answer(struct fake_op *op, int err);
size_t fake_written(enum fake_op_type type); /* Since the start. */
void fake_refuse_ops(int err); /* What sl_claim_end and sl_claim_stream return; 0: they work. */
/* Likewise, asked at each of them; NULL: they work. */
extern int (*fake_on_write)(enum fake_op_type type);
void fake_idle(bool idle); /* What sl_coord_idle says besides the ops. */

/* --- permits --- */

size_t fake_permits_held(void);
size_t fake_permits_waiting(void);
struct sl_permit *fake_permit_waiting(size_t i);
struct sl_permit *fake_permit_held(size_t i);
void fake_permit_grant(struct sl_permit *permit);
void fake_permit_expire(struct sl_permit *permit);
void fake_permit_lose(struct sl_permit *permit);
size_t fake_permits_released(void); /* Held ones, since the start. */

#endif
