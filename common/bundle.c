/*
 * Bundles are written and read by hand: two heads of fixed size, so that a gateway steps over the
 * events of queries that are not its own without looking into them.
 */
#include "common/bundle.h"

#include <assert.h>

enum { STR_8 = 0xd9, BIN_32 = 0xc6, ID_HEAD = 2, EVENT_HEAD = 5 };

size_t sl_bundle_len(struct sl_span id, struct sl_span event)
{
    return ID_HEAD + id.len + EVENT_HEAD + event.len;
}

void sl_bundle_add(struct sl_buf *out, struct sl_span id, struct sl_span event)
{
    assert(id.len <= UINT8_MAX && event.len <= UINT32_MAX);
    const unsigned char id_head[ID_HEAD] = {STR_8, (unsigned char)id.len};
    const unsigned char event_head[EVENT_HEAD] = {
        BIN_32, (unsigned char)(event.len >> 24), (unsigned char)(event.len >> 16),
        (unsigned char)(event.len >> 8), (unsigned char)event.len};
    sl_buf_append(out, id_head, sizeof(id_head));
    sl_buf_append_span(out, id);
    sl_buf_append(out, event_head, sizeof(event_head));
    sl_buf_append_span(out, event);
}

static bool take_pair(struct sl_span *rest, struct sl_span *id, struct sl_span *event)
{
    struct sl_span head;
    if (!sl_span_take(rest, ID_HEAD, &head) || (unsigned char)head.data[0] != STR_8 ||
        !sl_span_take(rest, (unsigned char)head.data[1], id) ||
        !sl_span_take(rest, EVENT_HEAD, &head) || (unsigned char)head.data[0] != BIN_32) {
        return false;
    }
    const unsigned char *len = (const unsigned char *)head.data + 1;
    return sl_span_take(
        rest, (size_t)len[0] << 24 | (size_t)len[1] << 16 | (size_t)len[2] << 8 | (size_t)len[3],
        event);
}

int sl_record_events(const struct sl_record *record,
                     void (*each)(void *ctx, struct sl_span id, struct sl_span event), void *ctx)
{
    struct sl_span id = sl_record_header(record, "sluice-id"), rest = record->value, event;
    if (id.len > 0) {
        each(ctx, id, record->value);
        return 0;
    }
    if (!sl_span_is(sl_record_header(record, "content-type"), SL_BUNDLE_TYPE)) {
        return 0; /* Not Sluice's. */
    }
    while (rest.len > 0) {
        if (!take_pair(&rest, &id, &event)) {
            return -SL_EBADMSG;
        }
        each(ctx, id, event);
    }
    return 0;
}
