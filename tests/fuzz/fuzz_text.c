/*
 * The small readers of text that comes from outside, one of them each time, chosen by the first
 * byte: questions for FTS5, HTTP values and URLs, the URL of Redis,
 * option values, and the log of a query's events for the gateway's reader.
 */
#include "common/chunk.h"
#include "common/codec.h"
#include "common/fts_query.h"
#include "common/http_text.h"
#include "common/option_value.h"
#include "common/redis_url.h"
#include "tests/support/test.h"
#include "workers/gateway/order.h"

#include <stdint.h>

enum { TOPIC_MAX = 249 }; /* Of Kafka. */

/* --- questions --- */

/* "word" OR "word": nothing of the text stands outside quotes. */
static void make_query(struct sl_span text)
{
    struct sl_buf out;
    sl_buf_init(&out, text.len + 8 * SL_FTS_WORDS_MAX + 64);
    size_t count = sl_fts_query(text, &out), words = 0;
    struct sl_span rest = sl_buf_span(&out);
    CHECK(sl_buf_error(&out) == 0 && count <= SL_FTS_WORDS_MAX);
    while (rest.len > 0) {
        const char *between = words > 0 ? " OR \"" : "\"";
        size_t len = strlen(between);
        CHECK(sl_span_begins(rest, between));
        const char *end = memchr(rest.data + len, '"', rest.len - len);
        CHECK(end != NULL && end > rest.data + len);
        struct sl_span word = {rest.data + len, (size_t)(end - rest.data) - len};
        CHECK(sl_utf8_valid(word) == word.len);
        rest.len -= (size_t)(end + 1 - rest.data);
        rest.data = end + 1;
        words++;
    }
    CHECK(words == count);
    sl_buf_fini(&out);
}

/* --- HTTP, Redis, options --- */

static void read_http(struct sl_span text, const char *terminated)
{
    char peer[64];
    bool token = sl_http_is_token(text), value = sl_http_is_value(text);
    CHECK(!token || value);
    CHECK(!value || text.len == 0 || memchr(text.data, '\n', text.len) == NULL);
    long ms = sl_http_retry_after_ms(text, 1700000000000);
    CHECK(ms >= -1 && ms <= SL_HTTP_RETRY_AFTER_MAX_MS);
    if (sl_http_url_peer(terminated, peer, sizeof(peer)) == 0) {
        CHECK(memchr(peer, '\0', sizeof(peer)) != NULL && strchr(peer, '@') == NULL);
    }
}

static void read_redis_url(const char *text)
{
    struct sl_redis_url url, untouched;
    char why[64] = "";
    memset(&url, 0x5a, sizeof(url));
    untouched = url;
    if (sl_redis_url_parse(text, &url, why, sizeof(why)) == 0) {
        CHECK(url.host[0] != '\0' && memchr(url.host, '\0', sizeof(url.host)) != NULL);
        CHECK(memchr(url.user, '\0', sizeof(url.user)) != NULL);
        CHECK(memchr(url.password, '\0', sizeof(url.password)) != NULL);
        CHECK(url.port > 0 && url.database >= 0);
    } else {
        CHECK(why[0] != '\0' && memcmp(&url, &untouched, sizeof(url)) == 0);
    }
}

static void read_options(const char *text)
{
    static const char *const choices[] = {"text", "json", NULL};
    union {
        long long whole;
        double number;
        const char *text;
        bool boolean;
        int choice;
    } value;
    struct sl_buf out;
    sl_buf_init(&out, 1 << 20);
    for (int type = SL_OPT_INT; type <= SL_OPT_PREFIX; type++) {
        struct sl_option option = {.name = "SLUICE_X",
                                   .type = (enum sl_option_type)type,
                                   .min = type == SL_OPT_DURATION ? 1000 : 0,
                                   .max = type == SL_OPT_DURATION ? 600000 : 0,
                                   .choices = type == SL_OPT_CHOICE ? choices : NULL};
        int rv = sl_option_store(&option, text, &value);
        CHECK(rv == 0 || rv == -SL_EINVAL);
        CHECK(rv != 0 || type != SL_OPT_DURATION || (value.whole >= 1000 && value.whole <= 600000));
        CHECK(rv != 0 || type != SL_OPT_CHOICE || (value.choice >= 0 && value.choice < 2));
        sl_option_put_wanted(&option, &out);
        sl_option_put_shown(&option, text, &out);
        CHECK(sl_buf_error(&out) == 0);
        for (size_t i = 0; i < out.len; i++) {
            CHECK((unsigned char)out.data[i] >= ' ' && out.data[i] != 0x7f);
        }
        sl_buf_clear(&out);
    }
    sl_buf_fini(&out);
}

/* --- events --- */

/* Four bytes an event. Whatever the log holds, the caller sees one generation, whole from its
 * start, sources once, and one end. */
static void read_log(struct sl_span log)
{
    struct order order = {0};
    uint32_t next_seq = 0, sources = 0;
    uint64_t fence = 0;
    bool ended = false, text = false;
    for (; log.len >= 4; log.data += 4, log.len -= 4) {
        const unsigned char *byte = (const unsigned char *)log.data;
        const struct sl_event event = {.type = (enum sl_event_type)(byte[0] % 5),
                                       .attempt = byte[1] % 4,
                                       .seq = byte[2] % 8,
                                       .fence = byte[3] % 8};
        enum order_verdict verdict = order_take(&order, &event);
        CHECK(!ended || verdict == ORDER_DROP);
        ended = order.ended;
        CHECK(verdict != ORDER_LOST || ended);
        if (verdict != ORDER_TAKE || event.type == SL_EVENT_ERROR) {
            CHECK(verdict != ORDER_TAKE || ended);
            continue;
        }
        CHECK((event.type == SL_EVENT_DONE) == ended);
        if (event.attempt == 0) {
            sources += event.type == SL_EVENT_SOURCES;
            CHECK(sources <= 1);
            continue;
        }
        if (event.fence != fence) {
            CHECK(event.fence > fence && (!text || event.type == SL_EVENT_RESTART));
            fence = event.fence;
            next_seq = 0;
        }
        CHECK(event.seq == next_seq++);
        text = event.type == SL_EVENT_DELTA || (text && event.type != SL_EVENT_RESTART);
    }
}

/* --- ids --- */

static void read_id(struct sl_span text, char *terminated)
{
    char derived[37];
    CHECK(!sl_id_valid(text) || (text.len >= 1 && text.len <= 64));
    terminated[strnlen(terminated, TOPIC_MAX)] = '\0';
    sl_id_derive(terminated, (int32_t)text.len, (int64_t)text.len, 1700000000000, derived);
    CHECK(sl_id_valid(sl_span_of(derived)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *terminated = size > 0 ? strndup((const char *)data + 1, size - 1) : NULL;
    if (terminated == NULL) {
        return 0;
    }
    struct sl_span text = {(const char *)data + 1, size - 1};
    switch (data[0] % 7) {
    case 0: /* Was the chunker's, which has a fuzzer of its own: the corpus keeps its numbers. */
        break;
    case 1:
        make_query(text);
        break;
    case 2:
        read_http(text, terminated);
        break;
    case 3:
        read_redis_url(terminated);
        break;
    case 4:
        read_options(terminated);
        break;
    case 5:
        read_log(text);
        break;
    default:
        read_id(text, terminated);
    }
    free(terminated);
    return 0;
}
