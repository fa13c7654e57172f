/* Bytes into replies, by hiredis' reader. The replies are read with the sl_reply_* of redis.h. */
#ifndef SLUICE_COMMON_REDIS_REPLY_H
#define SLUICE_COMMON_REDIS_REPLY_H

#include "common/redis.h"

struct redisReader;

struct redisReader *sl_redis_reader_create(void); /* NULL: out of memory. */
void sl_redis_reader_destroy(struct redisReader *reader);
/* Copies. False: out of memory. */
bool sl_redis_reader_feed(struct redisReader *reader, struct sl_span bytes) SL_CHECKED;
/* 1 and a whole reply, which the caller frees; 0: more bytes are needed; -SL_EPROTO: the bytes are
 * not Redis's protocol (why, one line), and no reply will come any more. */
int sl_redis_reader_next(struct redisReader *reader, struct redisReply **ret,
                         const char **why) SL_CHECKED;
void sl_redis_reply_destroy(struct redisReply *reply);

#endif
