/*
 * An arena: memory for one job, given back all at once. Blocks are taken from malloc as needed, up
 * to a maximum in bytes.
 */
#ifndef SLUICE_COMMON_ARENA_H
#define SLUICE_COMMON_ARENA_H

#include "common/buf.h"

struct sl_arena_block;

struct sl_arena {
    struct sl_arena_block *blocks;
    size_t used; /* Bytes taken from malloc so far. */
    size_t max;
    bool full; /* Something was refused for the maximum, not for want of memory. */
};

void sl_arena_init(struct sl_arena *arena, size_t max); /* Allocates nothing. */
void sl_arena_fini(struct sl_arena *arena);

/* Zeroed memory, aligned for any type, valid until fini; NULL when out of memory or over the
 * maximum. */
void *sl_arena_alloc(struct sl_arena *arena, size_t size) SL_CHECKED;
/* Copies; terminated with a zero beyond its length. data is NULL on failure (also len then 0). */
struct sl_span sl_arena_copy(struct sl_arena *arena, struct sl_span span) SL_CHECKED;
/* The same as a C string, or NULL. */
char *sl_arena_string(struct sl_arena *arena, struct sl_span span) SL_CHECKED;
char *sl_arena_printf(struct sl_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3))) SL_CHECKED;

#endif
