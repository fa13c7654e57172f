/*
 * A whole worker (worker.c, intake.c, job*.c, settle*.c) on a Kafka, a Redis and a clock that the
 * test plays, around a stage whose every step is the test's own. Nothing happens but in the test's
 * calls, in virtual time.
 */
#ifndef TESTS_SUPPORT_WORKER_FIXTURE_H
#define TESTS_SUPPORT_WORKER_FIXTURE_H

#include "common/worker_internal.h"
#include "tests/support/runtime/fake_coord.h"
#include "tests/support/runtime/fake_kafka.h"

enum { FX_QUERIES, FX_CHUNKS }; /* The inputs: public queries, bulk batches. */
enum { FX_SLOTS = 4, FX_BULK_SLOTS = 2, FX_DRAIN_MS = 10000, FX_TIMEOUT_MS = 60000 };

/* A worker whose stage has this place among the stages of a query, and two permits. */
void fx_create(enum sl_stage_index index);
int fx_start(enum sl_stage_index index);           /* The same; what worker_start said. */
int fx_start_stage(const struct sl_stage *tested); /* With a real stage. */
/* The k-th part that it creates fails: admin, producer, coord, HTTP, stage, consumer, signals. */
extern int fx_failing_part;
int fx_part_err(void); /* For the parts: what creating this one says. */
/* Ends it as its process would; checks that nothing is left. The exit code. */
int fx_destroy(void);
extern struct sl_worker fx_worker;

/* Turns the loop until nothing more follows from what has come. */
void fx_turn(void);
void fx_sleep(uint64_t ms);
int64_t fx_now(void); /* Redis's clock. */

/* SIGTERM, once or again; whether the loop was told to end. */
void fx_signal(void);
bool fx_stopped(void);
bool fx_ready(const char *condition);

/* --- records; each returns its position and has turned the loop --- */

struct sl_position fx_ask(const char *id);   /* With a reply topic, and a minute. */
struct sl_position fx_chunk(const char *id); /* Bulk; id is its document's. */
struct sl_position fx_take(const struct fake_record *record);
const char *fx_bulk_id(const struct sl_position *position); /* As claims name it. */

/* --- the stage: jobs between start and their settling --- */

extern size_t fx_starts, fx_cancels;
extern size_t fx_prepared; /* Queries that are to begin, and may have asked for something. */
size_t fx_running_count(void);
struct sl_job *fx_nth_running(size_t i);
struct sl_job *fx_running(const char *id); /* NULL: it does not run. */
/* A stage that settles its jobs takes them out of these. */
struct sl_job *fx_settle(const char *id);
/* What cancel tells the runtime there is so far; NULL: nothing. */
extern const char *fx_partial;
/* Set before fx_create: the stage runs what is worn out as if it were started. */
extern bool fx_hears_losses;

/* --- short ways, all with a turn --- */

void fx_verdict(const char *id, enum sl_verdict verdict);
struct sl_job *fx_grant(const char *id); /* With its permits; the job runs. */
void fx_forward(const char *id);
void fx_finish(const char *id, const char *answer);
int fx_emit(const char *id, const char *delta);
int fx_send(const char *id); /* A record to "vectors". */
void fx_ack(const char *topic);
void fx_fail(const char *topic, int err);
void fx_answer(enum fake_op_type type, int err);
/* The value of the last record to a topic, as text; JSON where it is that. */
const char *fx_last(const char *topic);
bool fx_last_has(const char *topic, const char *text);
/* Everything open is acknowledged and answered, until nothing more comes. */
void fx_finish_all(void);
/* No job, slot, permit, claim, offset or timer of a job is left. */
void fx_check_idle(void);
uint64_t fx_counted(enum job_outcome outcome);

#endif
