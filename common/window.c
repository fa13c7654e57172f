/*
 * The window over one partition's offsets. In the usual case jobs end in order and the bitmap is
 * never needed; it is made when a second offset is in flight, since only then can one end early.
 * Bit i % SL_WINDOW_SIZE says that offset i, with base <= i < end, has ended; bits outside that
 * range are clear. The offset at base is always in flight, or nothing is.
 */
#include "common/window.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

static uint64_t *word_of(const struct sl_window *window, int64_t offset)
{
    return &window->done[offset % SL_WINDOW_SIZE / 64];
}

static uint64_t bit_of(int64_t offset)
{
    return (uint64_t)1 << (offset % 64);
}

static bool has_ended(const struct sl_window *window, int64_t offset)
{
    return window->done != NULL && (*word_of(window, offset) & bit_of(offset)) != 0;
}

void sl_window_init(struct sl_window *window)
{
    *window = (struct sl_window){.base = -1};
}

void sl_window_fini(struct sl_window *window)
{
    free(window->done);
    sl_window_init(window);
}

bool sl_window_full(const struct sl_window *window, int64_t next_offset)
{
    return window->in_flight > 0 && next_offset - window->base >= SL_WINDOW_SIZE;
}

int sl_window_take(struct sl_window *window, int64_t offset)
{
    assert(offset >= 0);
    if (offset < window->end) {
        return -SL_EINVAL;
    }
    if (sl_window_full(window, offset)) {
        return -SL_EAGAIN;
    }
    if (window->in_flight == 0) {
        window->base = offset;
    } else if (window->done == NULL) {
        window->done = calloc(SL_WINDOW_SIZE / 64, sizeof(*window->done));
        if (window->done == NULL) {
            return -SL_ENOMEM;
        }
    }
    for (int64_t i = window->end; window->in_flight > 0 && i < offset; i++) {
        *word_of(window, i) |= bit_of(i); /* Skipped by the log. */
    }
    window->end = offset + 1;
    window->in_flight++;
    return 0;
}

bool sl_window_end(struct sl_window *window, int64_t offset)
{
    assert(window->in_flight > 0 && offset >= window->base && offset < window->end);
    assert(!has_ended(window, offset));
    window->in_flight--;
    if (offset != window->base) {
        *word_of(window, offset) |= bit_of(offset);
        return false;
    }
    window->base++;
    while (window->base < window->end && has_ended(window, window->base)) {
        *word_of(window, window->base) &= ~bit_of(window->base);
        window->base++;
    }
    return true;
}
