/*
 * Records become jobs.
 *
 * A record is first asked for its id (a header, or derived from its position), and whether this
 * process has that job already: after a rebalance the same record comes again while the job still
 * runs, and is then adopted, its new position added to the job's. Otherwise it takes a slot of its
 * class, is decoded into the arena of a new job, and asks for admission.
 *
 * What is no message goes to the dead-letter topic with its bytes untouched. A query that is a
 * message but not valid is admitted all the same, to get its bad_request result exactly once. A
 * message of a major version that is not known is left where it is (worker_version_unknown).
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

/* --- slots --- */

size_t intake_room(void *ctx, uint32_t class)
{
    struct sl_worker *worker = ctx;
    size_t waiting = worker->counts[JOB_UNPARKED]; /* They come first. */
    size_t used = worker->slots_used[class] + waiting;
    if (worker->draining || worker->version_blocked || used >= worker->slots_max[class]) {
        return 0;
    }
    return worker->slots_max[class] - used;
}

static void take_slot(struct sl_job *job)
{
    job->has_slot = true;
    job->worker->slots_used[job->input->bulk ? CLASS_BULK : CLASS_QUERY]++;
}

void intake_unpark(struct sl_task *task)
{
    struct sl_worker *worker = SL_ITEM(task, struct sl_worker, unpark);
    SL_LIST_EACH_SAFE(node, &worker->states[JOB_UNPARKED])
    {
        struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
        uint32_t class = job->input->bulk ? CLASS_BULK : CLASS_QUERY;
        if (!worker->draining && worker->slots_used[class] < worker->slots_max[class]) {
            take_slot(job);
            job_set_state(job, JOB_ADMITTING);
            job_admit(job);
        }
    }
}

/* --- decoding --- */

/* A job of a public topic: it is new, so its times begin here. */
static void begin_query(struct sl_job *job)
{
    struct sl_query *query = job->query;
    const struct sl_record *record = &job->record;
    query->json = sl_route_json(record);
    query->accepted_ms = record->timestamp_ms;
    query->source_topic = sl_span_of(record->topic);
    query->source_partition = record->partition;
    query->source_offset = record->offset;
    if (query->deadline_ms == 0) {
        query->deadline_ms = record->timestamp_ms + query->timeout_ms;
    }
}

static int decode_query(struct sl_job *job)
{
    struct sl_query *query = sl_arena_alloc(&job->arena, sizeof(*query));
    if (query == NULL) {
        return -SL_ENOMEM;
    }
    int rv = job->input->public
                 ? sl_query_decode(job->record.value, sl_route_json(&job->record), &job->arena,
                                   query, &job->fault)
                 : sl_query_decode_internal(job->record.value, &job->arena, query, &job->fault);
    if (rv != 0 && rv != -SL_EINVAL) {
        return rv;
    }
    struct sl_fault route_fault = {{0}, {0}};
    int route_rv =
        sl_route_read(&job->record, job->worker->reply_topics, &job->arena, query, &route_fault);
    if (route_rv != 0 && rv == 0) {
        job->fault = route_fault;
    }
    rv = rv != 0 && route_rv != -SL_EBADMSG ? rv : route_rv;
    if (rv != 0 && rv != -SL_EINVAL) {
        return rv;
    }
    job->query = query;
    if (job->input->public) {
        begin_query(job);
    }
    return rv;
}

static int decode_bulk(struct sl_job *job)
{
    if (job->input->kind == SL_INPUT_BATCH) {
        job->batch = sl_arena_alloc(&job->arena, sizeof(*job->batch));
        return job->batch == NULL
                   ? -SL_ENOMEM
                   : sl_batch_decode(job->record.value, &job->arena, job->batch, &job->fault);
    }
    job->document = sl_arena_alloc(&job->arena, sizeof(*job->document));
    if (job->document == NULL) {
        return -SL_ENOMEM;
    }
    struct sl_span tenant = sl_record_header(&job->record, "sluice-tenant");
    int rv = sl_document_decode(job->record.value, sl_route_json(&job->record), &job->arena,
                                job->document, &job->fault);
    job->document->tenant =
        sl_arena_copy(&job->arena, tenant.len > 0 ? tenant : SL_SPAN("default"));
    return rv == 0 && job->document->tenant.data == NULL ? -SL_ENOMEM : rv;
}

/* Sets query, document or batch. 0 or -SL_EINVAL: it is a job (with job->fault_err set); else not.
 */
int intake_decode(struct sl_job *job)
{
    int rv = job->input->kind == SL_INPUT_QUERY ? decode_query(job) : decode_bulk(job);
    if (rv == -SL_EINVAL && job->input->kind == SL_INPUT_QUERY) {
        job->fault_err = rv;
        rv = 0;
    }
    return rv;
}

/* --- arrival --- */

/* The job's key in this process: its class and its id. */
static char *job_key(struct sl_job *job)
{
    struct sl_span id = SL_SPAN("");
    char derived[37];
    if (job->input->kind == SL_INPUT_QUERY) {
        id = sl_record_header(&job->record, "sluice-id");
    }
    if (id.len == 0) {
        sl_id_derive(job->record.topic, job->record.partition, job->record.offset,
                     job->record.timestamp_ms, derived);
        id = sl_span_of(derived);
    }
    return sl_arena_printf(&job->arena, "%c" SL_SPAN_FMT, job->input->bulk ? 'b' : 'q',
                           SL_SPAN_ARG(id));
}

static bool adopt(struct sl_worker *worker, struct sl_job *fresh, struct sl_span key,
                  const struct sl_position *position)
{
    struct sl_map_node *node = sl_map_find(&worker->jobs, key);
    if (node == NULL) {
        return false;
    }
    struct sl_job *running = SL_ITEM(node, struct sl_job, by_key);
    if (job_add_position(running, position) == 0) {
        sl_log(SL_LOG_DEBUG, "adopted", SL_SPANF("id", running->id));
    } else {
        sl_log(SL_LOG_ERROR, "offset held back until restart", SL_SPANF("id", running->id));
    }
    job_destroy(fresh);
    return true;
}

static void on_undecodable(struct sl_job *job, int rv)
{
    if (rv == -SL_EVERSION) {
        worker_version_unknown(job->worker, &job->record);
        job_destroy(job);
    } else if (rv == -SL_ENOMEM) {
        sl_log(SL_LOG_ERROR, "record larger than a job may be", SL_STR("topic", job->record.topic),
               SL_INT("bytes", job->record.value.len));
        settle_dead_letter(job, -SL_ETOOBIG, "decoding it takes more memory than a job may have");
    } else {
        settle_dead_letter(job, rv, job->fault.message);
    }
}

void intake_record(void *ctx, const struct sl_record *record, const struct sl_position *position)
{
    struct sl_worker *worker = ctx;
    struct sl_job *job = job_create(worker, record, position);
    if (job == NULL) {
        sl_log(SL_LOG_ERROR, "out of memory: record left for redelivery",
               SL_STR("topic", record->topic), SL_INT("offset", record->offset));
        return;
    }
    const char *key = job_key(job);
    if (key == NULL || adopt(worker, job, sl_span_of(key), position)) {
        if (key == NULL) {
            job_destroy(job);
        }
        return;
    }
    sl_map_add(&worker->jobs, &job->by_key, sl_span_of(key));
    job->id = sl_span_of(key + 1);
    take_slot(job);
    int64_t queued = sl_coord_now_ms(worker->coord) - record->timestamp_ms;
    job->time.queue_ms = queued > 0 ? (uint32_t)queued : 0;
    int rv = intake_decode(job);
    if (rv != 0) {
        on_undecodable(job, rv);
    } else {
        job_admit(job);
    }
}
