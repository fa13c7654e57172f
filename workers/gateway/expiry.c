/*
 * An expired query's ending: packed, stored by compare-and-set, produced, acknowledged. Each ending
 * is in gateway->endings until then, so that a drain can wait for it.
 *
 * If another ending was stored first, that one counts, and its event is what the caller gets unless
 * it takes too long to come through the log. If the records cannot be produced for a minute they
 * are left: whoever reads the job finds the stored ending and produces it.
 */
#include "workers/gateway/expiry.h"

#include "common/claim.h"
#include "common/ending.h"
#include "common/log.h"

#include <stdlib.h>

enum { ENDING_MAX = 1 << 20, TRIES_MAX = 60, RETRY_MS = 1000, RECORDS_MAX = 2 };

struct expiry {
    struct gateway *gateway;
    struct sl_list node; /* In gateway->endings. */
    struct sl_buf bytes;
    struct sl_timer retry;
    unsigned tries;
    unsigned waiting;  /* Reports of the producer. */
    bool failed;       /* One of them was not good: all records are sent again. */
    int32_t partition; /* Of the result. */
    int64_t offset;
};

static void produce(struct expiry *expiry);

static void free_expiry(struct expiry *expiry)
{
    sl_timer_stop(expiry->gateway->loop, &expiry->retry);
    sl_list_remove(&expiry->node);
    sl_buf_fini(&expiry->bytes);
    free(expiry);
}

static void on_retry(struct sl_timer *timer)
{
    produce(SL_ITEM(timer, struct expiry, retry));
}

static void finish_try(struct expiry *expiry)
{
    struct sl_ending ending;
    int err = sl_ending_unpack(sl_buf_span(&expiry->bytes), &ending);
    if (expiry->failed && ++expiry->tries < TRIES_MAX) {
        expiry->failed = false;
        sl_timer_start(expiry->gateway->loop, &expiry->retry, RETRY_MS, on_retry);
        return;
    }
    if (expiry->failed) {
        sl_log(SL_LOG_ERROR, "an ending was not produced", SL_SPANF("id", ending.id));
    } else if (err == 0) {
        sl_claim_ended(expiry->gateway->coord, ending.id, expiry->partition, expiry->offset);
    }
    free_expiry(expiry);
}

static void on_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct expiry *expiry = ctx;
    (void)partition;
    (void)offset;
    expiry->failed = expiry->failed || err != 0;
    if (--expiry->waiting == 0) {
        finish_try(expiry);
    }
}

static void on_result_delivery(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct expiry *expiry = ctx;
    if (err == 0) {
        expiry->partition = partition;
        expiry->offset = offset;
    }
    on_delivery(ctx, err, partition, offset);
}

static void produce(struct expiry *expiry)
{
    struct gateway *gateway = expiry->gateway;
    struct sl_ending ending;
    struct sl_route route;
    struct sl_outgoing records[RECORDS_MAX];
    char reply[TOPIC_MAX];
    if (sl_ending_unpack(sl_buf_span(&expiry->bytes), &ending) != 0) {
        free_expiry(expiry);
        return;
    }
    size_t count = sl_ending_records(&ending, gateway->results_topic, &route, reply, records);
    expiry->waiting = 1; /* This function, so that the last report comes after the last send. */
    for (size_t i = 0; i < count; i++) {
        bool is_result = i + 1 == count;
        if (sl_producer_send(gateway->producer, &records[i],
                             is_result ? on_result_delivery : on_delivery, expiry) == 0) {
            expiry->waiting++;
        } else {
            expiry->failed = true;
        }
    }
    if (--expiry->waiting == 0) {
        finish_try(expiry);
    }
}

static void on_stored(void *ctx, int err)
{
    struct expiry *expiry = ctx;
    if (err == 0) {
        produce(expiry);
        return;
    }
    struct sl_ending ending;
    if (err == -SL_EEXIST && sl_ending_unpack(sl_buf_span(&expiry->bytes), &ending) == 0) {
        sl_log(SL_LOG_INFO, "another ending was first", SL_SPANF("id", ending.id));
    } else {
        sl_log(SL_LOG_WARN, "the ending of an expired query was not stored", SL_ERR(err));
    }
    free_expiry(expiry);
}

void expiry_start(struct gateway *gateway, const struct sl_query *query,
                  const struct sl_result *result)
{
    struct expiry *expiry = calloc(1, sizeof(*expiry));
    if (expiry == NULL) {
        sl_log(SL_LOG_ERROR, "no memory for an ending", SL_SPANF("id", query->id));
        return;
    }
    expiry->gateway = gateway;
    expiry->partition = -1;
    expiry->offset = -1;
    sl_list_push(&gateway->endings, &expiry->node);
    sl_buf_init(&expiry->bytes, ENDING_MAX);
    /* Attempt 0: readers take it whatever came before. Its sequence follows the sources'. */
    sl_ending_pack(query, result, 0, 1, 0, sl_coord_now_ms(gateway->coord), &expiry->bytes);
    int err = sl_buf_error(&expiry->bytes);
    err = err != 0
              ? err
              : sl_claim_end(gateway->coord, query->id, NULL, 0, sl_outcome_text(result->outcome),
                             sl_buf_span(&expiry->bytes), on_stored, expiry);
    if (err != 0) {
        sl_log(SL_LOG_WARN, "the ending of an expired query was not stored",
               SL_SPANF("id", query->id), SL_ERR(err));
        free_expiry(expiry);
    }
}

void expiry_free_all(struct gateway *gateway)
{
    SL_LIST_EACH_SAFE(node, &gateway->endings)
    {
        free_expiry(SL_ITEM(node, struct expiry, node));
    }
}
