/*
 * What an unknown id says by itself.
 *
 * A gateway's ids are UUIDs of version 7, whose first 48 bits are the time in milliseconds. What
 * Redis has forgotten was there once if that time lies further back than results are kept, and was
 * never there otherwise. A producer's own id does not tell.
 */
#include "workers/gateway/query_id.h"

enum { UUID_LEN = 36, TIME_DIGITS = 12, VARIANT_AT = 19 };

static int digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int64_t query_id_time_ms(struct sl_span id)
{
    static const char shape[UUID_LEN + 1] = "hhhhhhhh-hhhh-7hhh-hhhh-hhhhhhhhhhhh";
    int64_t ms = 0;
    int digits = 0;
    if (id.len != UUID_LEN) {
        return -1;
    }
    for (size_t i = 0; i < UUID_LEN; i++) {
        int value = digit(id.data[i]);
        if (shape[i] == 'h' ? value < 0 : id.data[i] != shape[i]) {
            return -1;
        }
        if (shape[i] == 'h' && digits < TIME_DIGITS) {
            ms = ms * 16 + value;
            digits++;
        }
    }
    return (digit(id.data[VARIANT_AT]) & 0xc) == 0x8 ? ms : -1;
}

void query_id_respond_unknown(const struct gateway *gateway, const struct request *request)
{
    static const struct failure unknown = {
        .status = 404, .code = "not_found", .param = "id", .message = "there is no such query"};
    int64_t time_ms = query_id_time_ms(sl_span_of(request->id));
    if (time_ms >= 0 &&
        time_ms < sl_coord_now_ms(gateway->coord) - gateway->process->result_ttl_ms) {
        query_id_respond_gone(request);
    } else {
        respond_failure(request, &unknown);
    }
}

void query_id_respond_gone(const struct request *request)
{
    static const struct failure gone = {.status = 410,
                                        .code = "gone",
                                        .param = "id",
                                        .message = "the query's result is not kept any more"};
    respond_failure(request, &gone);
}
