/*
 * A Redis in memory, in virtual time: the commands that the scripts of common/lua/ use, and the
 * scripts themselves, run by Lua 5.1 with the conversions that Redis makes. Replies are the bytes
 * that a server would send (version 2 of the protocol). What a real server answers to the same
 * calls is compared in tests/integration/test_sim_redis.c. One at a time; what fails ends the
 * program.
 */
#ifndef TESTS_SUPPORT_REDIS_EMULATOR_H
#define TESTS_SUPPORT_REDIS_EMULATOR_H

#include "common/buf.h"

#include <stdint.h>

struct emulator;
struct emulator_snapshot;

struct emulator *emulator_create(void);
void emulator_destroy(struct emulator *emulator);
/* The server's clock, Unix time; it stands still until told otherwise. */
void emulator_set_time(struct emulator *emulator, int64_t us);
/* Over its maxmemory: commands that may need memory are refused, but inside a script that has
 * written already. */
void emulator_set_full(struct emulator *emulator, bool full);
void emulator_on_publish(struct emulator *emulator,
                         void (*cb)(void *ctx, struct sl_span channel, struct sl_span message),
                         void *ctx);
void emulator_flush(struct emulator *emulator); /* FLUSHALL */
/* What the data was at this moment; may be loaded any number of times. */
struct emulator_snapshot *emulator_save(const struct emulator *emulator);
void emulator_load(struct emulator *emulator, const struct emulator_snapshot *snapshot);
void emulator_snapshot_destroy(struct emulator_snapshot *snapshot); /* Takes NULL. */

/* Appends the reply. */
void emulator_command(struct emulator *emulator, size_t argc, const struct sl_span *argv,
                      struct sl_buf *reply);
/* EVAL; the keys stand first in argv. */
void emulator_eval(struct emulator *emulator, struct sl_span text, size_t key_count, size_t argc,
                   const struct sl_span *argv, struct sl_buf *reply);

/* For checks. Borrowed until the next command; data NULL: there is none. */
struct sl_span emulator_hash_field(struct emulator *emulator, const char *key, const char *field);
size_t emulator_zset_len(struct emulator *emulator, const char *key);

#endif
