/*
 * A queue of records in one buffer. It is filled once, for the moments between the first token and
 * the sources, and is empty for most streams; what does not fit is not worth waiting for.
 */
#include "workers/gateway/early.h"

#include "common/arena.h"
#include "common/codec.h"

#include <string.h>

enum { KEPT_MAX = 256 << 10, ARENA_MAX = 4 << 20 };

void early_init(struct early *early)
{
    *early = (struct early){.over = false};
    sl_buf_init(&early->records, KEPT_MAX);
}

void early_fini(struct early *early)
{
    sl_buf_fini(&early->records);
}

bool early_any(const struct early *early)
{
    return early->records.len > 0;
}

bool early_keep(struct early *early, const struct order *order, const struct sl_event *event,
                struct sl_span value)
{
    bool waits = !early->over && !order->has_sources && event->attempt > 0 &&
                 event->type != SL_EVENT_DONE && event->type != SL_EVENT_ERROR;
    size_t len = sizeof(value.len) + value.len;
    if (!waits) {
        return false;
    }
    char *at = sl_buf_reserve(&early->records, len);
    if (at == NULL) {
        return false; /* The caller gives what waits, and then this. */
    }
    memcpy(at, &value.len, sizeof(value.len));
    memcpy(at + sizeof(value.len), value.data, value.len);
    early->records.len += len;
    return true;
}

void early_give(struct early *early,
                bool (*take)(void *ctx, const struct sl_event *event, struct sl_span value),
                void *ctx)
{
    struct sl_buf records = early->records;
    bool more = true;
    early->over = true;
    sl_buf_init(&early->records, 0);
    for (size_t at = 0; more && at < records.len;) {
        struct sl_span value;
        struct sl_arena arena;
        struct sl_event event;
        memcpy(&value.len, records.data + at, sizeof(value.len));
        value.data = records.data + at + sizeof(value.len);
        at += sizeof(value.len) + value.len;
        sl_arena_init(&arena, ARENA_MAX);
        if (sl_event_decode(value, &arena, &event) == 0) { /* As it was when it came. */
            more = take(ctx, &event, value);
        }
        sl_arena_fini(&arena);
    }
    sl_buf_fini(&records);
}
