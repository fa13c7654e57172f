/*
 * The seam to hiredis, of which only the reader is used. Its async API is not: in 0.14, which
 * Debian 12 has, it gives the reply to a PING on a subscribed connection to a subscription's
 * callback, and ends the process by an assert on a reply that it did not expect. The reader is the
 * same in all versions. A NULL reply reads as nil, so that callers can look into arrays without
 * asking at each step.
 */
#include "common/redis_reply.h"

#include <hiredis/hiredis.h>
#include <limits.h>

struct redisReader *sl_redis_reader_create(void)
{
    return redisReaderCreate();
}

void sl_redis_reader_destroy(struct redisReader *reader)
{
    if (reader != NULL) {
        redisReaderFree(reader);
    }
}

bool sl_redis_reader_feed(struct redisReader *reader, struct sl_span bytes)
{
    return redisReaderFeed(reader, bytes.data, bytes.len) == REDIS_OK;
}

int sl_redis_reader_next(struct redisReader *reader, struct redisReply **ret, const char **why)
{
    void *reply = NULL;
    if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
        *why = reader->errstr;
        return -SL_EPROTO;
    }
    *ret = reply != NULL ? reply : *ret;
    return reply != NULL ? 1 : 0;
}

void sl_redis_reply_destroy(struct redisReply *reply)
{
    freeReplyObject(reply);
}

enum sl_reply_type sl_reply_type(const struct redisReply *reply)
{
    switch (reply != NULL ? reply->type : REDIS_REPLY_NIL) {
    case REDIS_REPLY_INTEGER:
        return SL_REPLY_INT;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return SL_REPLY_STRING;
    case REDIS_REPLY_ARRAY:
        return SL_REPLY_ARRAY;
    case REDIS_REPLY_ERROR:
        return SL_REPLY_ERROR;
    default: /* Other types come only to who asks for version 3 of the protocol. */
        return SL_REPLY_NIL;
    }
}

struct sl_span sl_reply_span(const struct redisReply *reply)
{
    enum sl_reply_type type = sl_reply_type(reply);
    if (type != SL_REPLY_STRING && type != SL_REPLY_ERROR) {
        return (struct sl_span){NULL, 0};
    }
    return (struct sl_span){reply->str, reply->len};
}

long long sl_reply_int(const struct redisReply *reply)
{
    long long value = 0;
    switch (sl_reply_type(reply)) {
    case SL_REPLY_INT:
        return reply->integer;
    case SL_REPLY_STRING:
        return sl_span_to_int(sl_reply_span(reply), LLONG_MIN, LLONG_MAX, &value) == 0 ? value : 0;
    default:
        return 0;
    }
}

size_t sl_reply_len(const struct redisReply *reply)
{
    return sl_reply_type(reply) == SL_REPLY_ARRAY ? reply->elements : 0;
}

const struct redisReply *sl_reply_at(const struct redisReply *reply, size_t i)
{
    return i < sl_reply_len(reply) ? reply->element[i] : NULL;
}
