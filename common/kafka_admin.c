/*
 * Administration for the command line: making topics, counting partitions. Each call makes a
 * client, asks, and closes it again; each blocks, for about the time-out it is given at most.
 */
#include "common/kafka_internal.h"

#include "common/kafka_security.h"

#include <stdlib.h>

/* --- topics --- */

enum { PATIENCE_MS = 3000 };

static int make_new_topic(const struct sl_topic_spec *spec, rd_kafka_NewTopic_t **ret, char *why,
                          size_t why_size)
{
    char text[256] = "";
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(spec->name, spec->partitions, spec->replication, text, sizeof(text));
    if (topic == NULL) {
        sl_kafka_why(why, why_size, "%s: %s", spec->name, text);
        return -SL_EINVAL;
    }
    for (size_t i = 0; spec->config != NULL && spec->config[i] != NULL; i += 2) {
        if (rd_kafka_NewTopic_set_config(topic, spec->config[i], spec->config[i + 1]) !=
            RD_KAFKA_RESP_ERR_NO_ERROR) {
            sl_kafka_why(why, why_size, "%s: %s cannot be set", spec->name, spec->config[i]);
            rd_kafka_NewTopic_destroy(topic);
            return -SL_EINVAL;
        }
    }
    *ret = topic;
    return 0;
}

/* One result a topic, found by its name; the first error that is not "exists already". */
static int read_results(const rd_kafka_CreateTopics_result_t *result,
                        const struct sl_topic_spec *specs, size_t count, int *result_err, char *why,
                        size_t why_size)
{
    size_t result_count = 0;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(result, &result_count);
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        result_err[i] = -SL_EIO;
        for (size_t k = 0; k < result_count; k++) {
            if (strcmp(rd_kafka_topic_result_name(results[k]), specs[i].name) != 0) {
                continue;
            }
            result_err[i] = sl_kafka_map_error(rd_kafka_topic_result_error(results[k]));
            if (rc == 0 && result_err[i] != 0 && result_err[i] != -SL_EEXIST) {
                rc = result_err[i];
                sl_kafka_why(why, why_size, "%s: %s", specs[i].name,
                             rd_kafka_topic_result_error_string(results[k]));
            }
        }
    }
    return rc;
}

/* NULL: none came within the time, or, after the first seconds, connections fail of TLS or SASL. */
static rd_kafka_event_t *await_answer(rd_kafka_queue_t *queue, int timeout_ms, char *why,
                                      size_t why_size)
{
    int first_ms = timeout_ms < PATIENCE_MS ? timeout_ms : PATIENCE_MS;
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, first_ms);
    if (event == NULL && !sl_kafka_trouble(why, why_size)) {
        event = rd_kafka_queue_poll(queue, timeout_ms - first_ms);
        sl_kafka_why(why, why_size, "no answer within %d ms", timeout_ms);
    }
    return event;
}

static int request_topics(rd_kafka_t *rk, rd_kafka_NewTopic_t **topics,
                          const struct sl_topic_spec *specs, size_t count, int timeout_ms,
                          int *result_err, char *why, size_t why_size)
{
    char text[256];
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    int rc = 0;
    if (rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text)) !=
            RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_AdminOptions_set_operation_timeout(options, timeout_ms, text, sizeof(text)) !=
            RD_KAFKA_RESP_ERR_NO_ERROR) {
        sl_kafka_why(why, why_size, "%s", text);
        rc = -SL_EINVAL;
        goto destroy_queue;
    }
    rd_kafka_CreateTopics(rk, topics, count, options, queue);
    rd_kafka_event_t *event = await_answer(queue, timeout_ms, why, why_size);
    if (event == NULL) {
        rc = -SL_ETIMEDOUT;
        goto destroy_queue;
    }
    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        sl_kafka_why(why, why_size, "%s", rd_kafka_event_error_string(event));
        rc = sl_kafka_map_error(rd_kafka_event_error(event));
    } else {
        rc = read_results(rd_kafka_event_CreateTopics_result(event), specs, count, result_err, why,
                          why_size);
    }
    rd_kafka_event_destroy(event);

destroy_queue:
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return rc;
}

int sl_kafka_create_topics(const struct sl_kafka_config *config, const struct sl_topic_spec *specs,
                           size_t count, int timeout_ms, int *result_err, char *why,
                           size_t why_size)
{
    struct sl_kafka_client *client = NULL;
    rd_kafka_NewTopic_t **topics = calloc(count, sizeof(*topics));
    int rc = topics != NULL ? 0 : -SL_ENOMEM;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        rc = make_new_topic(&specs[i], &topics[i], why, why_size);
    }
    if (rc == 0) {
        rc = sl_kafka_client_create(RD_KAFKA_PRODUCER, config, NULL, 0, &client, why, why_size);
    }
    if (rc == 0) {
        rc =
            request_topics(client->rk, topics, specs, count, timeout_ms, result_err, why, why_size);
    }
    sl_kafka_client_destroy(client, 0);
    for (size_t i = 0; topics != NULL && i < count && topics[i] != NULL; i++) {
        rd_kafka_NewTopic_destroy(topics[i]);
    }
    free(topics);
    return rc;
}

/* --- partitions --- */

int sl_kafka_count_partitions(rd_kafka_t *rk, const char *topic, int timeout_ms)
{
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
    if (rkt == NULL) {
        return -SL_EINVAL;
    }
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, rkt, &metadata, timeout_ms);
    int count = sl_kafka_map_error(err);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        count = metadata->topic_cnt > 0 ? metadata->topics[0].partition_cnt : 0;
        if (count == 0) {
            err = metadata->topic_cnt > 0 ? metadata->topics[0].err : err;
            count = err == RD_KAFKA_RESP_ERR_NO_ERROR ? -SL_ENOENT : sl_kafka_map_error(err);
        }
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(rkt);
    return count;
}

int sl_kafka_partition_count(const struct sl_kafka_config *config, const char *topic,
                             int timeout_ms)
{
    struct sl_kafka_client *client = NULL;
    int rc = sl_kafka_client_create(RD_KAFKA_PRODUCER, config, NULL, 0, &client, NULL, 0);
    if (rc == 0) {
        rc = sl_kafka_count_partitions(client->rk, topic, timeout_ms);
        sl_kafka_client_destroy(client, 0);
    }
    return rc;
}
