/*
 * A record of the replies topic as anybody may write it. What a gateway reads of it lies in the
 * record, in order; written again it is what was read.
 *
 * The input: a byte that chooses the headers, then the value.
 */
#include "common/bundle.h"
#include "tests/support/test.h"

#include <stdint.h>

enum { MEMORY_MAX = 64 << 20 };

struct reading {
    struct sl_span value;
    const char *at; /* Nothing before it comes again. */
    struct sl_buf again;
    size_t count;
};

static void on_event(void *ctx, struct sl_span id, struct sl_span event)
{
    struct reading *reading = ctx;
    const char *end = reading->value.data + reading->value.len;
    CHECK(event.len <= reading->value.len && event.data >= reading->at &&
          event.data + event.len <= end);
    reading->at = event.data + event.len;
    reading->count++;
    sl_bundle_add(&reading->again, id, event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sl_kafka_header headers[] = {
        {{"content-type", 12}, {SL_BUNDLE_TYPE, sizeof(SL_BUNDLE_TYPE) - 1}},
        {{"sluice-id", 9}, {"q1", 2}},
        {{"content-type", 12}, {"application/msgpack", 19}},
    };
    if (size < 1) {
        return 0;
    }
    struct sl_span value = {(const char *)data + 1, size - 1};
    size_t choice = data[0] % 4;
    struct reading reading = {.value = value, .at = value.data};
    const struct sl_record record = {.topic = "sluice.replies",
                                     .value = value,
                                     .headers = &headers[choice % 3],
                                     .header_count = choice < 3 ? 1 : 0};
    sl_buf_init(&reading.again, MEMORY_MAX);
    int rv = sl_record_events(&record, on_event, &reading);
    struct sl_span again = sl_buf_span(&reading.again);
    CHECK(sl_buf_error(&reading.again) == 0);
    if (choice == 0) {
        CHECK(again.len <= value.len && (rv == 0) == (again.len == value.len));
        CHECK(again.len == 0 || memcmp(again.data, value.data, again.len) == 0);
        CHECK(rv == 0 || rv == -SL_EBADMSG);
    } else {
        CHECK_INT(rv, 0);
        CHECK_INT(reading.count, choice == 1 ? 1 : 0);
    }
    sl_buf_fini(&reading.again);
    return 0;
}
