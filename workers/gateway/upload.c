/*
 * An upload.
 *
 *   READING    the body becomes records, on the thread pool where it is not small
 *   BEGINNING  Redis is told that the run begins: what is counted must have its place first
 *   SENDING    the records go to Kafka, a bounded number of bytes a turn, and are acknowledged
 *   CLOSING    Redis is told how many there are, and which never came to the topic
 *
 * 202 means that the broker has every document that the run counts. A caller who leaves while the
 * body is read is forgotten; later the upload goes on without him, since part of it may be on the
 * topic, and a run that is never closed would never end.
 *
 * What can go wrong: Redis is away before anything is sent (503, nothing happened); Kafka takes
 * none of it (503, and the run is closed as one that failed) or only some (202, the others are
 * failures of the run); Redis goes away after that (202, and the closing is tried for a while).
 *
 * Documents have a producer of their own, made for the first of them: a record of megabytes on the
 * connection that questions take would hold them up.
 */
#include "workers/gateway/upload.h"

#include "common/log.h"
#include "workers/gateway/document_request.h"
#include "workers/gateway/ingests.h"
#include "workers/gateway/parameters.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    UPLOADS_MAX = 64,
    UPLOAD_BYTES_MAX = 64 << 20, /* Of bodies, all uploads together. */
    SMALL_BODY = 64 << 10,       /* Read at once. */
    METADATA_MAX = 16384,
    TURN_BYTES = 2 << 20,
    TURN_RECORDS = 64,
    CLOSE_AGAIN_MS = 500,
    CLOSE_TRIES = 20,
    WAIT_ROOM_MS = 20,
};

enum state { READING, BEGINNING, SENDING, CLOSING };

struct upload {
    struct gateway *gateway;
    struct request request; /* exchange NULL: the caller has gone, or has everything. */
    struct sl_list node;    /* In gateway->uploads. */
    enum state state;
    bool working;   /* On the pool: may not be freed. */
    bool abandoned; /* The gateway has ended meanwhile. */
    struct document_request read;
    struct sl_arena names; /* Of the URL. */
    struct sl_fault fault;
    int err;      /* Of the reading; then the last that Kafka said. */
    size_t bytes; /* Counted in gateway->upload_bytes. */
    size_t sent, unreported;
    int *failed;     /* By record: why it is not on the topic; 0: it is. */
    size_t asking;   /* Answers of Redis that are due. */
    bool close_lost; /* One of them was an error. */
    int tries;
    struct sl_timer timer;
};

static void send_some(struct upload *upload);
static void close_run(struct upload *upload);

/* --- the end --- */

static void free_upload(struct upload *upload)
{
    sl_list_remove(&upload->node);
    document_request_fini(&upload->read);
    sl_arena_fini(&upload->names);
    free(upload);
}

/* The exchange was answered, or has gone. */
static void end(struct upload *upload)
{
    struct gateway *gateway = upload->gateway;
    sl_timer_stop(gateway->loop, &upload->timer);
    gateway->upload_bytes -= upload->bytes;
    gateway->upload_count--;
    gateway->callers--;
    assert(upload->request.exchange == NULL);
    free_upload(upload);
    gateway_caller_gone(gateway);
}

static void on_gone(void *ctx, bool complete)
{
    struct upload *upload = ctx;
    (void)complete;
    upload->request.exchange = NULL;
}

/* What is to be answered now, if anybody is there: the exchange is then over for the upload. */
static bool take_request(struct upload *upload, struct request *ret)
{
    *ret = upload->request;
    if (ret->exchange != NULL) {
        sl_http_on_gone(ret->exchange, NULL, NULL);
    }
    upload->request.exchange = NULL;
    return ret->exchange != NULL;
}

static void overloaded(struct upload *upload, const char *message)
{
    struct request request;
    if (take_request(upload, &request)) {
        respond_overloaded(&request, message);
    }
}

/* --- closing the run --- */

static size_t count_failed(const struct upload *upload)
{
    size_t count = 0;
    for (size_t i = 0; i < upload->read.count; i++) {
        count += upload->failed[i] != 0;
    }
    return count;
}

static void respond_accepted(struct upload *upload)
{
    char body[128];
    struct request request;
    if (take_request(upload, &request)) { /* An id has nothing to escape. */
        snprintf(body, sizeof(body), "{\"ingest_id\":\"%s\"}", request.id);
        respond_json(&request, 202, sl_span_of(body));
    }
}

static void on_close_again(struct sl_timer *timer)
{
    close_run(SL_ITEM(timer, struct upload, timer));
}

static void on_closed(struct upload *upload)
{
    respond_accepted(upload);
    if (!upload->close_lost) {
        end(upload);
    } else if (++upload->tries < CLOSE_TRIES && !upload->abandoned) {
        sl_timer_start(upload->gateway->loop, &upload->timer, CLOSE_AGAIN_MS, on_close_again);
    } else {
        sl_log(SL_LOG_WARN, "a run of ingestion could not be closed",
               SL_STR("ingest_id", upload->request.id));
        end(upload);
    }
}

static void on_told(void *ctx, int err)
{
    struct upload *upload = ctx;
    upload->asking--;
    /* A run that Redis does not know any more has nothing to close. */
    upload->close_lost = upload->close_lost || (err != 0 && err != -SL_ENOENT);
    upload->abandoned = upload->abandoned || err == -SL_ECLOSED;
    if (upload->asking == 0) {
        on_closed(upload);
    }
}

/* All of it again when a part was lost: Redis counts each once. */
static void close_run(struct upload *upload)
{
    const struct sl_ingest_env env = ingests_env(upload->gateway);
    struct sl_span id = sl_span_of(upload->request.id);
    upload->close_lost = false;
    upload->asking = 1; /* Of this function. */
    for (size_t i = 0; i < upload->read.count; i++) {
        if (upload->failed[i] == 0) {
            continue;
        }
        bool asked =
            sl_ingest_refuse(&env, id, upload->read.list[i].doc_id,
                             sl_span_of(sl_error_text(upload->failed[i])), on_told, upload) == 0;
        upload->asking += asked;
        upload->close_lost = upload->close_lost || !asked;
    }
    bool asked =
        sl_ingest_close(&env, id, upload->read.count - count_failed(upload), on_told, upload) == 0;
    upload->asking += asked;
    upload->close_lost = upload->close_lost || !asked;
    if (--upload->asking == 0) {
        on_closed(upload);
    }
}

/* --- Kafka --- */

static void check_sent(struct upload *upload)
{
    if (upload->state != SENDING || upload->sent < upload->read.count || upload->unreported > 0) {
        return;
    }
    upload->state = CLOSING;
    if (count_failed(upload) == upload->read.count) {
        overloaded(upload, upload->err == -SL_ENOENT
                               ? "the topic of documents does not exist: sluice topics create "
                                 "makes it"
                               : "Kafka did not take the documents");
    }
    close_run(upload);
}

struct report {
    struct upload *upload;
    size_t index;
};

static void on_report(void *ctx, int err, int32_t partition, int64_t offset)
{
    struct report *report = ctx;
    struct upload *upload = report->upload;
    (void)partition;
    (void)offset;
    upload->failed[report->index] = err;
    upload->err = err != 0 ? err : upload->err;
    upload->unreported--;
    free(report);
    check_sent(upload);
}

static int send_one(struct upload *upload, size_t i)
{
    const struct sl_kafka_header headers[] = {
        {SL_SPAN("content-type"), SL_SPAN("application/msgpack")},
        {SL_SPAN("sluice-tenant"), SL_SPAN("default")}};
    const struct document_record *record = &upload->read.list[i];
    struct report *report = malloc(sizeof(*report));
    const struct sl_outgoing outgoing = {
        .topic = upload->gateway->documents_topic,
        .partition = -1,
        .key = record->doc_id,
        .value = {upload->read.records.data + record->at, record->len},
        .headers = headers,
        .header_count = 2};
    if (report == NULL) {
        return -SL_ENOMEM;
    }
    *report = (struct report){upload, i};
    int rv = sl_producer_send(upload->gateway->document_producer, &outgoing, on_report, report);
    if (rv != 0) {
        free(report);
    }
    upload->unreported += rv == 0;
    return rv;
}

static void on_send_again(struct sl_timer *timer)
{
    send_some(SL_ITEM(timer, struct upload, timer));
}

static void send_some(struct upload *upload)
{
    size_t bytes = 0, records = 0;
    int rv = 0;
    while (upload->sent < upload->read.count && bytes < TURN_BYTES && records < TURN_RECORDS) {
        rv = send_one(upload, upload->sent);
        if (rv == -SL_EAGAIN) {
            break;
        }
        upload->failed[upload->sent] = rv;
        upload->err = rv != 0 ? rv : upload->err;
        bytes += upload->read.list[upload->sent].len;
        records++;
        upload->sent++;
    }
    if (upload->sent < upload->read.count) {
        sl_timer_start(upload->gateway->loop, &upload->timer, rv == -SL_EAGAIN ? WAIT_ROOM_MS : 0,
                       on_send_again);
        return;
    }
    sl_buf_fini(&upload->read.records);
    check_sent(upload);
}

static void on_producer_fatal(void *ctx, const char *why)
{
    struct gateway *gateway = ctx;
    sl_log(SL_LOG_ERROR, "the producer of documents cannot go on", SL_STR("why", why));
    gateway_fail(gateway);
}

static int need_producer(struct gateway *gateway)
{
    const struct sl_kafka_config config = {.brokers = gateway->process->brokers,
                                           .client_id = "gateway"};
    char why[256] = "";
    if (gateway->document_producer != NULL) {
        return 0;
    }
    int rv = sl_producer_create(gateway->loop, &config, on_producer_fatal, gateway,
                                &gateway->document_producer, why, sizeof(why));
    if (rv == 0) {
        sl_producer_warm(gateway->document_producer, gateway->documents_topic);
    } else {
        sl_log(SL_LOG_WARN, "no producer of documents", SL_STR("why", why));
    }
    return rv;
}

/* --- the run begins --- */

static const char not_begun[] = "Redis could not be told of the documents; nothing was sent";

static void on_begun(void *ctx, int err)
{
    struct upload *upload = ctx;
    if (err != 0) {
        overloaded(upload, not_begun);
        end(upload);
        return;
    }
    upload->state = SENDING;
    send_some(upload);
}

static void begin_run(struct upload *upload)
{
    const struct sl_ingest_env env = ingests_env(upload->gateway);
    const char *source =
        upload->request.route == ROUTE_DOCUMENTS ? "POST /v1/documents" : "DELETE /v1/documents";
    upload->state = BEGINNING;
    upload->failed =
        sl_arena_alloc(&upload->read.arena, upload->read.count * sizeof(*upload->failed));
    if (upload->failed == NULL || need_producer(upload->gateway) != 0 ||
        sl_ingest_begin(&env, sl_span_of(upload->request.id), upload->read.run_collection,
                        sl_span_of(source), on_begun, upload) != 0) {
        overloaded(upload, not_begun);
        end(upload);
    }
}

/* --- reading --- */

static void refuse(struct upload *upload, int err, const struct sl_fault *fault)
{
    struct request request;
    if (take_request(upload, &request)) {
        ingests_respond_fault(&request, err, fault);
    }
    end(upload);
}

static void work(void *ctx)
{
    struct upload *upload = ctx;
    upload->err = document_request_read(&upload->read, &upload->fault);
}

static void on_read(void *ctx)
{
    struct upload *upload = ctx;
    upload->working = false;
    if (upload->abandoned) {
        free_upload(upload);
        return;
    }
    if (upload->request.exchange == NULL) {
        end(upload); /* Nothing has happened yet. */
    } else if (upload->err != 0) {
        refuse(upload, upload->err, &upload->fault);
    } else {
        begin_run(upload);
    }
}

static struct upload *create(struct gateway *gateway, const struct request *request)
{
    struct upload *upload = NULL;
    size_t len = sl_http_body(request->exchange).len;
    if (gateway->draining) {
        respond_overloaded(request, "this gateway is about to end");
        return NULL;
    }
    if (gateway->upload_count < UPLOADS_MAX && gateway->upload_bytes + len <= UPLOAD_BYTES_MAX) {
        upload = calloc(1, sizeof(*upload));
    }
    if (upload == NULL) {
        respond_overloaded(request, "as many documents as this gateway takes at once are on their "
                                    "way");
        return NULL;
    }
    upload->gateway = gateway;
    upload->request = *request;
    document_request_init(&upload->read);
    sl_arena_init(&upload->names, 1 << 20);
    upload->bytes = len;
    sl_list_push(&gateway->uploads, &upload->node);
    gateway->upload_bytes += len;
    gateway->upload_count++;
    gateway->callers++;
    return upload;
}

static void read_body(struct upload *upload)
{
    struct request *request = &upload->request;
    sl_http_body_take(request->exchange, &upload->read.body);
    upload->read.ingest_id = sl_span_of(request->id);
    sl_http_on_gone(request->exchange, on_gone, upload);
    upload->working = true;
    if (upload->bytes <= SMALL_BODY) {
        work(upload);
        on_read(upload);
    } else if (sl_work_submit(upload->gateway->loop, work, on_read, upload) != 0) {
        upload->working = false;
        overloaded(upload, sl_error_text(-SL_ENOMEM));
        end(upload);
    }
}

static void respond_media_type(const struct request *request)
{
    static const struct failure failure = {
        .status = 415,
        .code = "unsupported_media_type",
        .param = "content-type",
        .message = "content-type must be application/json, text/plain or text/markdown"};
    respond_failure(request, &failure);
}

void upload_start(struct gateway *gateway, struct request *request)
{
    struct parameter table[] = {{.name = "doc_id", .max = DOCUMENT_ID_MAX, .required = true},
                                {.name = "collection", .max = COLLECTION_MAX},
                                {.name = "metadata", .max = METADATA_MAX}};
    bool is_text = request_has_type(request->exchange, "text/plain") ||
                   request_has_type(request->exchange, "text/markdown");
    struct sl_fault fault;
    if (!is_text && !request_has_json(request->exchange)) {
        respond_media_type(request);
        return;
    }
    struct upload *upload = create(gateway, request);
    if (upload == NULL) {
        return;
    }
    int rv = parameters_read(sl_http_query(request->exchange), table, is_text ? 3 : 0,
                             &upload->names, &fault);
    if (rv != 0) {
        refuse(upload, rv, &fault);
        return;
    }
    upload->read.is_text = is_text;
    upload->read.doc_id = table[0].value;
    upload->read.collection = table[1].value;
    upload->read.metadata = table[2].value;
    read_body(upload);
}

void upload_remove(struct gateway *gateway, struct request *request)
{
    struct parameter collection = {.name = "collection", .max = COLLECTION_MAX};
    struct upload *upload = create(gateway, request);
    struct sl_fault fault;
    if (upload == NULL) {
        return;
    }
    int rv =
        parameters_read(sl_http_query(request->exchange), &collection, 1, &upload->names, &fault);
    rv = rv != 0 ? rv
                 : path_part_read(ingests_path_rest(request), "id", DOCUMENT_ID_MAX, &upload->names,
                                  &upload->read.doc_id, &fault);
    upload->read.collection = collection.value.data != NULL ? collection.value : SL_SPAN("default");
    upload->read.ingest_id = sl_span_of(upload->request.id);
    rv = rv != 0 ? rv : document_request_remove(&upload->read);
    if (rv != 0) {
        refuse(upload, rv, &fault);
        return;
    }
    sl_http_on_gone(request->exchange, on_gone, upload);
    begin_run(upload);
}

/* --- the gateway ends --- */

bool uploads_idle(const struct gateway *gateway)
{
    return gateway->upload_count == 0;
}

void uploads_stop(struct gateway *gateway, uint32_t flush_ms)
{
    SL_LIST_EACH(node, &gateway->uploads)
    {
        struct upload *upload = SL_ITEM(node, struct upload, node);
        sl_timer_stop(gateway->loop, &upload->timer);
    }
    if (gateway->document_producer != NULL) {
        sl_producer_destroy(gateway->document_producer, flush_ms);
    }
}

void uploads_free_all(struct gateway *gateway)
{
    SL_LIST_EACH_SAFE(node, &gateway->uploads)
    {
        struct upload *upload = SL_ITEM(node, struct upload, node);
        sl_timer_stop(gateway->loop, &upload->timer);
        sl_list_remove(node);
        if (upload->working) {
            upload->abandoned = true;
        } else {
            free_upload(upload);
        }
    }
}
