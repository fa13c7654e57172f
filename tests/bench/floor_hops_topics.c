/*
 * The topics of one run. They are made for it and deleted after it, with the groups that read them,
 * so that a run neither finds nor leaves anything. Each call takes a client of its own: none of
 * them is there while the chain is measured.
 *
 * A topic that has been created is known to the controller first and to clients a moment later; the
 * metadata is asked for until each partition has a leader, because a consumer that subscribes too
 * early looks again only after its refresh interval. What can go wrong: no broker (some seconds,
 * then a line), or a topic that does not come.
 */
#include "tests/bench/floor_hops.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <time.h>

enum { REQUEST_MS = 10000, LOOK_MS = 20, LOOKS = 500 };

void hops_name(const struct hops_options *options, unsigned hop, char ret[NAME_SIZE])
{
    snprintf(ret, NAME_SIZE, "%s.%u", options->prefix, hop);
}

static rd_kafka_t *make_client(const struct hops_options *options)
{
    char why[256] = "";
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_t *rk = NULL;
    if (rd_kafka_conf_set(conf, "bootstrap.servers", options->brokers, why, sizeof(why)) ==
        RD_KAFKA_CONF_OK) {
        rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    }
    if (rk == NULL) {
        fprintf(stderr, "bench_floor_hops: %s\n", why);
        rd_kafka_conf_destroy(conf);
    }
    return rk;
}

static int tell(const char *what, const char *why)
{
    fprintf(stderr, "bench_floor_hops: %s: %s\n", what, why);
    return -SL_EIO;
}

/* The answer of the request that was made with this queue; gives it back. */
static int await_answer(rd_kafka_queue_t *queue, const char *what)
{
    int rc = 0;
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, REQUEST_MS + 1000);
    if (event == NULL) {
        rc = tell(what, "no answer");
    } else if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        rc = tell(what, rd_kafka_event_error_string(event));
    } else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_CREATETOPICS_RESULT) {
        size_t count;
        const rd_kafka_topic_result_t **topics =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
        for (size_t i = 0; i < count && rc == 0; i++) {
            if (rd_kafka_topic_result_error(topics[i]) != RD_KAFKA_RESP_ERR_NO_ERROR) {
                rc = tell(rd_kafka_topic_result_name(topics[i]),
                          rd_kafka_err2str(rd_kafka_topic_result_error(topics[i])));
            }
        }
    }
    if (event != NULL) {
        rd_kafka_event_destroy(event);
    }
    return rc;
}

static bool has_leaders(rd_kafka_t *rk, const char *name, unsigned partitions)
{
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    const struct rd_kafka_metadata *metadata = NULL;
    if (topic == NULL ||
        rd_kafka_metadata(rk, 0, topic, &metadata, REQUEST_MS) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        metadata = NULL;
    }
    bool all = metadata != NULL && metadata->topic_cnt == 1 &&
               metadata->topics[0].partition_cnt == (int)partitions;
    for (int i = 0; all && i < metadata->topics[0].partition_cnt; i++) {
        all = metadata->topics[0].partitions[i].leader >= 0;
    }
    if (metadata != NULL) {
        rd_kafka_metadata_destroy(metadata);
    }
    if (topic != NULL) {
        rd_kafka_topic_destroy(topic);
    }
    return all;
}

static int await_leaders(rd_kafka_t *rk, const struct hops_options *options)
{
    unsigned found = 0;
    for (unsigned look = 0; look < LOOKS && found < options->hops; look++) {
        char name[NAME_SIZE];
        hops_name(options, found, name);
        if (has_leaders(rk, name, options->partitions)) {
            found++;
        } else {
            nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
        }
    }
    return found == options->hops ? 0 : tell(options->prefix, "the topics have no leaders");
}

int hops_topics_create(const struct hops_options *options)
{
    rd_kafka_t *rk = make_client(options);
    if (rk == NULL) {
        return -SL_EIO;
    }
    rd_kafka_NewTopic_t *topics[HOPS_MAX];
    for (unsigned i = 0; i < options->hops; i++) {
        char name[NAME_SIZE];
        hops_name(options, i, name);
        topics[i] = rd_kafka_NewTopic_new(name, (int)options->partitions, 1, NULL, 0);
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_CreateTopics(rk, topics, options->hops, NULL, queue);
    int rc = await_answer(queue, "creating topics");
    if (rc == 0) {
        rc = await_leaders(rk, options);
    }
    rd_kafka_NewTopic_destroy_array(topics, options->hops);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
    return rc;
}

int hops_topics_delete(const struct hops_options *options)
{
    rd_kafka_t *rk = make_client(options);
    if (rk == NULL) {
        return -SL_EIO;
    }
    rd_kafka_DeleteTopic_t *topics[HOPS_MAX];
    rd_kafka_DeleteGroup_t *groups[HOPS_MAX];
    for (unsigned i = 0; i < options->hops; i++) {
        char name[NAME_SIZE];
        hops_name(options, i, name);
        topics[i] = rd_kafka_DeleteTopic_new(name);
        groups[i] = rd_kafka_DeleteGroup_new(name);
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_DeleteGroups(rk, groups, options->hops, NULL, queue);
    int rc = await_answer(queue, "deleting groups");
    rd_kafka_DeleteTopics(rk, topics, options->hops, NULL, queue);
    int topics_rc = await_answer(queue, "deleting topics");
    rd_kafka_DeleteTopic_destroy_array(topics, options->hops);
    rd_kafka_DeleteGroup_destroy_array(groups, options->hops);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
    return rc == 0 ? topics_rc : rc;
}
