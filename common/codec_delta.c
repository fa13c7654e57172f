/*
 * A token is a few bytes among seventy that are the same in each event of its stream. So a delta is
 * written as those seventy with the rest between them, and read by comparing them. Who writes other
 * members, or the same in another order, is read by codec_event.c, which stays the one that says
 * what an event is: a change there is a change here.
 *
 * Numbers and texts have the shortest heads, as msgpack-c writes them; any head is read.
 */
#include "common/codec_delta.h"

#include "common/codec_value.h"
#include "common/json.h"

#include <assert.h>

enum { ID_MAX = 64, TEXT_MAX = 1 << 20, NUMBER_MAX = 9, HEAD_MAX = 5 };
enum { STR_FIX = 0xa0, STR_8 = 0xd9, UINT_8 = 0xcc }; /* Each twice as wide follows its half. */

#define BEFORE_ID "\x86\xa2id"
#define BEFORE_ATTEMPT                                                                             \
    "\xa4type\xa5"                                                                                 \
    "delta\xa7"                                                                                    \
    "attempt"
#define BEFORE_SEQ "\xa3seq"
#define BEFORE_FENCE                                                                               \
    "\xa5"                                                                                         \
    "fence"
#define BEFORE_TEXT "\xa4text"
enum {
    LITERALS = sizeof(BEFORE_ID BEFORE_ATTEMPT BEFORE_SEQ BEFORE_FENCE BEFORE_TEXT),
};

/* --- reading --- */

static inline bool skip(struct sl_span *rest, struct sl_span literal)
{
    struct sl_span there;
    return sl_span_take(rest, literal.len, &there) &&
           memcmp(there.data, literal.data, literal.len) == 0;
}

/* The big-endian number of 1, 2, 4 or 8 bytes behind a tag. */
static bool take_wide(struct sl_span *rest, size_t width, uint64_t *ret)
{
    struct sl_span bytes;
    uint64_t number = 0;
    if (!sl_span_take(rest, width, &bytes)) {
        return false;
    }
    for (size_t i = 0; i < width; i++) {
        number = number << 8 | (unsigned char)bytes.data[i];
    }
    *ret = number;
    return true;
}

static bool take_number(struct sl_span *rest, uint64_t max, uint64_t *ret)
{
    struct sl_span tag;
    if (!sl_span_take(rest, 1, &tag)) {
        return false;
    }
    unsigned char c = (unsigned char)tag.data[0];
    if (c <= 0x7f) {
        *ret = c;
        return true;
    }
    return c >= UINT_8 && c <= UINT_8 + 3 && take_wide(rest, (size_t)1 << (c - UINT_8), ret) &&
           *ret <= max;
}

static bool take_text(struct sl_span *rest, size_t min, size_t max, struct sl_span *ret)
{
    struct sl_span tag;
    uint64_t len = 0;
    if (!sl_span_take(rest, 1, &tag)) {
        return false;
    }
    unsigned char c = (unsigned char)tag.data[0];
    if ((c & 0xe0) == STR_FIX) {
        len = c & 0x1f;
    } else if (c < STR_8 || c > STR_8 + 2 || !take_wide(rest, (size_t)1 << (c - STR_8), &len)) {
        return false;
    }
    return len >= min && len <= max && sl_span_take(rest, (size_t)len, ret) && sl_text_valid(*ret);
}

bool sl_delta_read(struct sl_span bytes, struct sl_event *ret)
{
    struct sl_event event = {.type = SL_EVENT_DELTA};
    uint64_t attempt, seq;
    if (!skip(&bytes, SL_SPAN(BEFORE_ID)) || !take_text(&bytes, 1, ID_MAX, &event.id) ||
        !skip(&bytes, SL_SPAN(BEFORE_ATTEMPT)) || !take_number(&bytes, UINT32_MAX, &attempt) ||
        !skip(&bytes, SL_SPAN(BEFORE_SEQ)) || !take_number(&bytes, UINT32_MAX, &seq) ||
        !skip(&bytes, SL_SPAN(BEFORE_FENCE)) || !take_number(&bytes, INT64_MAX, &event.fence) ||
        !skip(&bytes, SL_SPAN(BEFORE_TEXT)) || !take_text(&bytes, 0, TEXT_MAX, &event.text) ||
        bytes.len > 0) {
        return false;
    }
    event.attempt = (uint32_t)attempt;
    event.seq = (uint32_t)seq;
    *ret = event;
    return true;
}

/* --- writing --- */

static inline char *put(char *to, const void *bytes, size_t len)
{
    memcpy(to, bytes, len);
    return to + len;
}

/* The tag of this width's logarithm, and the number behind it. */
static char *put_wide(char *to, unsigned tag, uint64_t number)
{
    unsigned log = number > UINT32_MAX ? 3 : number > UINT16_MAX ? 2 : number > UINT8_MAX ? 1 : 0;
    *to++ = (char)(tag + log);
    for (int shift = (8 << log) - 8; shift >= 0; shift -= 8) {
        *to++ = (char)(number >> shift);
    }
    return to;
}

static char *put_number(char *to, uint64_t number)
{
    if (number <= 0x7f) {
        *to = (char)number;
        return to + 1;
    }
    return put_wide(to, UINT_8, number);
}

static char *put_text(char *to, struct sl_span text)
{
    if (text.len <= 0x1f) {
        *to++ = (char)(STR_FIX | text.len);
    } else {
        to = put_wide(to, STR_8, text.len);
    }
    return text.len > 0 ? put(to, text.data, text.len) : to;
}

bool sl_delta_write(const struct sl_event *event, struct sl_buf *out)
{
    assert(event->type == SL_EVENT_DELTA);
    if (event->fence > INT64_MAX || event->text.len > TEXT_MAX || event->id.len > ID_MAX ||
        !sl_text_valid(event->text) || !sl_text_valid(event->id)) {
        return false;
    }
    char *to = sl_buf_reserve(out, LITERALS + 3 * NUMBER_MAX + 2 * HEAD_MAX + event->id.len +
                                       event->text.len);
    if (to != NULL) {
        char *at = put(to, BEFORE_ID, sizeof(BEFORE_ID) - 1);
        at = put_text(at, event->id);
        at = put(at, BEFORE_ATTEMPT, sizeof(BEFORE_ATTEMPT) - 1);
        at = put_number(at, event->attempt);
        at = put(at, BEFORE_SEQ, sizeof(BEFORE_SEQ) - 1);
        at = put_number(at, event->seq);
        at = put(at, BEFORE_FENCE, sizeof(BEFORE_FENCE) - 1);
        at = put_number(at, event->fence);
        at = put(at, BEFORE_TEXT, sizeof(BEFORE_TEXT) - 1);
        at = put_text(at, event->text);
        out->len += (size_t)(at - to);
    }
    return true;
}

void sl_delta_json(const struct sl_event *event, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_buf_append_text(out, "{\"id\":");
    sl_json_put_string(&w, event->id);
    sl_buf_append_text(out, ",\"type\":\"delta\",\"attempt\":");
    sl_buf_append_uint(out, event->attempt);
    sl_buf_append_text(out, ",\"seq\":");
    sl_buf_append_uint(out, event->seq);
    sl_buf_append_text(out, ",\"text\":");
    w.comma = false;
    sl_json_put_string(&w, event->text);
    sl_buf_append_text(out, "}");
}
