/*
 * A Redis for stage tests: GET, MGET and SET on a few keys in memory. What was sent is executed at
 * once and answered when the test says so, in order. Replaces redis.c at link time, and those parts
 * of coord.c by which a stage reaches it.
 */
#ifndef TESTS_SUPPORT_FAKE_REDIS_H
#define TESTS_SUPPORT_FAKE_REDIS_H

#include "common/redis.h"

extern int fake_redis_refusal; /* What sl_redis_command returns; 0: it works. */
/* What a script is answered, as Redis would write it; asked when it is sent. NULL: none is run. */
extern const char *(*fake_redis_script)(size_t argc, const struct sl_span *argv);
size_t fake_redis_sent(void);  /* Commands since the start. */
size_t fake_redis_open(void);  /* Not answered yet. */
/* The oldest of them. err not 0: in place of its reply. */
void fake_redis_answer(int err);
size_t fake_redis_keys(void);
const char *fake_redis_key(size_t i);
struct sl_span fake_redis_value(size_t i);
void fake_redis_set(size_t i, struct sl_span value);
/* As the end of the connection: what is open gets -SL_ECLOSED. Forgets all. */
void fake_redis_close(void);

#endif
