/*
 * A bump allocator over a list of blocks. Blocks start at 4 KiB, so that an idle job is cheap; what
 * is larger than a block gets one of its own. Under AddressSanitizer each allocation still comes
 * from the same block: overruns inside a job's arena are not seen, which is the price of one free
 * per job.
 */
#include "common/arena.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

enum { BLOCK_SIZE = 4096, ALIGNMENT = _Alignof(max_align_t) };

struct sl_arena_block {
    struct sl_arena_block *next;
    size_t len;
    size_t cap;
    max_align_t data[];
};

void sl_arena_init(struct sl_arena *arena, size_t max)
{
    *arena = (struct sl_arena){.max = max};
}

void sl_arena_fini(struct sl_arena *arena)
{
    while (arena->blocks != NULL) {
        struct sl_arena_block *block = arena->blocks;
        arena->blocks = block->next;
        free(block);
    }
    arena->used = 0;
    arena->full = false;
}

static struct sl_arena_block *add_block(struct sl_arena *arena, size_t size)
{
    size_t cap = size > BLOCK_SIZE / 4 ? size : BLOCK_SIZE - sizeof(struct sl_arena_block);
    size_t total = sizeof(struct sl_arena_block) + cap;
    if (total > arena->max || arena->used > arena->max - total) {
        arena->full = true;
        return NULL;
    }
    struct sl_arena_block *block = malloc(total);
    if (block == NULL) {
        return NULL;
    }
    block->len = 0;
    block->cap = cap;
    if (size > BLOCK_SIZE / 4 && arena->blocks != NULL) { /* Keep filling the current block. */
        block->next = arena->blocks->next;
        arena->blocks->next = block;
    } else {
        block->next = arena->blocks;
        arena->blocks = block;
    }
    arena->used += total;
    return block;
}

void *sl_arena_alloc(struct sl_arena *arena, size_t size)
{
    if (size > arena->max) {
        arena->full = true;
        return NULL;
    }
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct sl_arena_block *block = arena->blocks;
    if (block == NULL || block->cap - block->len < size) {
        block = add_block(arena, size);
        if (block == NULL) {
            return NULL;
        }
    }
    void *memory = (char *)block->data + block->len;
    block->len += size;
    return memset(memory, 0, size);
}

struct sl_span sl_arena_copy(struct sl_arena *arena, struct sl_span span)
{
    char *text = sl_arena_string(arena, span);
    return (struct sl_span){text, text != NULL ? span.len : 0};
}

char *sl_arena_string(struct sl_arena *arena, struct sl_span span)
{
    char *text = sl_arena_alloc(arena, span.len + 1);
    if (text != NULL && span.len > 0) {
        memcpy(text, span.data, span.len);
    }
    return text;
}

char *sl_arena_printf(struct sl_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(len >= 0);
    char *text = sl_arena_alloc(arena, (size_t)len + 1);
    if (text != NULL) {
        va_start(args, format);
        vsnprintf(text, (size_t)len + 1, format, args);
        va_end(args);
    }
    return text;
}
