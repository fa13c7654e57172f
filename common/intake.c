/*
 * Records become jobs.
 *
 * A record is first asked for its id (a header, or derived from its position), and whether this
 * process has that job already: after a rebalance the same record comes again while the job still
 * runs, and is then adopted, its new position added to the job's. Otherwise it takes a slot of its
 * class, is decoded into the arena of a new job, and asks for admission.
 *
 * What is no message goes to the dead-letter topic with its bytes untouched, under a key of its
 * own, so that it stands in no other record's way. A query that is a message but not valid is
 * admitted all the same, to get its bad_request result exactly once. A message of a major version
 * that is not known is left where it is (worker_version_unknown). A record that there is no memory
 * for cannot be left: its window would never end. The process then ends, as after a signal.
 *
 * How much is taken: a slot each for what is at work, and for what is parked, whose slots are given
 * back, a limit in bytes. Both a class: bulk work never stands in a query's way.
 */
#include "common/worker_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <assert.h>
#include <stdio.h>

enum { DEADLINE_MAX_MS = 600000, ID_MAX = 64 };

/* --- slots --- */

/* Too much is parked. Counted when it begins. */
static bool parked_full(struct sl_worker *worker, uint32_t class)
{
    bool full = worker->parked_bytes[class] >= (size_t)worker->options.parked_max;
    if (full && !worker->parked_is_full[class]) {
        sl_counter_add(worker->parked_full, 1);
        sl_log(SL_LOG_WARN, "too much is parked: no more is taken",
               SL_STR("variable", "SLUICE_PARKED_MAX"),
               SL_INT("jobs", worker->counts[JOB_PARKED] + worker->counts[JOB_UNPARKED]));
    }
    worker->parked_is_full[class] = full;
    return full;
}

size_t intake_room(void *ctx, uint32_t class)
{
    struct sl_worker *worker = ctx;
    size_t used = worker->slots_used[class] + worker->unparked[class]; /* These come first. */
    bool is_full =
        class == CLASS_QUERY && worker->backlog != NULL && sl_backlog_full(worker->backlog);
    if (is_full || worker->draining || worker->closing || worker->version_blocked ||
        worker->holds || used >= worker->slots_max[class] || parked_full(worker, class)) {
        return 0;
    }
    return worker->slots_max[class] - used;
}

static void take_slot(struct sl_job *job)
{
    job->has_slot = true;
    if (job->worker->backlog != NULL && class_of_input(job->input) == CLASS_QUERY) {
        sl_backlog_begun(job->worker->backlog);
    }
    job->worker->slots_used[class_of_input(job->input)]++;
}

static void unpark(struct sl_job *job)
{
    take_slot(job);
    job_set_state(job, JOB_ADMITTING);
    if (intake_decode(job) == 0) {
        job_admit(job);
    } else { /* The same bytes were decoded before. */
        worker_fail(job->worker, "out of memory: a parked job cannot be decoded again");
        job_abandon(job);
    }
}

static bool has_slots(const struct sl_worker *worker, uint32_t class)
{
    return !worker->draining && worker->slots_used[class] < worker->slots_max[class];
}

void intake_unpark(struct sl_task *task)
{
    struct sl_worker *worker = SL_ITEM(task, struct sl_worker, unpark);
    SL_LIST_EACH_SAFE(node, &worker->states[JOB_UNPARKED])
    {
        struct sl_job *job = SL_ITEM(node, struct sl_job, in_state);
        bool room[CLASS_COUNT] = {has_slots(worker, CLASS_QUERY), has_slots(worker, CLASS_BULK)};
        if (room[class_of_input(job->input)]) {
            unpark(job);
        } else if (!room[CLASS_QUERY] && !room[CLASS_BULK]) {
            break;
        }
    }
    if (worker->consumer != NULL) {
        sl_consumer_kick(worker->consumer); /* Less may be parked than the limit now. */
    }
}

/* --- decoding --- */

/* A job of a public topic: it is new, so its times begin here. A producer's clock that is ahead
 * does not give it more time than it may ask for; one that is behind is taken for a record that
 * waited.
 */
static void begin_query(struct sl_job *job)
{
    struct sl_query *query = job->query;
    const struct sl_record *record = &job->record;
    int64_t now = sl_coord_now_ms(job->worker->coord);
    bool dated = record->timestamp_ms > 0 && record->timestamp_ms <= now;
    query->json = sl_route_json(record);
    query->key = sl_span_equal(record->key, query->id) ? SL_SPAN("") : record->key;
    query->accepted_ms = dated ? record->timestamp_ms : now;
    query->source_topic = sl_span_of(record->topic);
    query->source_partition = record->partition;
    query->source_offset = record->offset;
    if (query->deadline_ms == 0) {
        query->deadline_ms = query->accepted_ms + query->timeout_ms;
    }
    if (query->deadline_ms > now + DEADLINE_MAX_MS) {
        query->deadline_ms = now + DEADLINE_MAX_MS;
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
    if (route_rv != 0 && (rv == 0 || route_rv != -SL_EINVAL)) {
        job->fault = route_fault;
        rv = route_rv;
    }
    if (rv != 0 && rv != -SL_EINVAL) {
        return rv;
    }
    job->query = query;
    if (job->input->public) {
        begin_query(job);
    } else if (query->deadline_ms == 0) { /* From whoever wrote it without: it is not for ever. */
        query->deadline_ms = sl_coord_now_ms(job->worker->coord) + query->timeout_ms;
    }
    return rv;
}

static int decode_result(struct sl_job *job)
{
    job->ended = sl_arena_alloc(&job->arena, sizeof(*job->ended));
    return job->ended == NULL ? -SL_ENOMEM
                              : sl_result_decode(job->record.value, sl_route_json(&job->record),
                                                 &job->arena, job->ended, &job->fault);
}

static int decode_bulk(struct sl_job *job)
{
    if (job->input->kind == SL_INPUT_RESULT) {
        return decode_result(job);
    }
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
    struct sl_span tenant;
    int rv = sl_document_decode(job->record.value, sl_route_json(&job->record), &job->arena,
                                job->document, &job->fault);
    rv = rv != 0 ? rv : sl_route_tenant(&job->record, &job->arena, &tenant, &job->fault);
    if (rv == 0) {
        job->document->tenant = tenant;
    }
    return rv;
}

/* Sets query, document, batch or ended. 0: it is a job (perhaps with job->fault_err set); else not.
 */
int intake_decode(struct sl_job *job)
{
    uint64_t began_us = sl_clock_now_us();
    int rv = job->input->kind == SL_INPUT_QUERY ? decode_query(job) : decode_bulk(job);
    job->decode_us = sl_clock_now_us() - began_us;
    if (rv == -SL_EINVAL && job->input->kind == SL_INPUT_QUERY) {
        job->fault_err = rv;
        rv = 0;
    }
    return rv;
}

/* --- arrival --- */

/* The job's key in this process: what it is and its id. */
static void make_key(char kind, const struct sl_record *record, struct sl_span id,
                     char key[JOB_KEY_MAX])
{
    char derived[37];
    if (id.len == 0 || !sl_id_valid(id)) {
        sl_id_derive(record->topic, record->partition, record->offset, record->timestamp_ms,
                     derived);
        id = sl_span_of(derived);
    }
    assert(id.len <= ID_MAX);
    snprintf(key, JOB_KEY_MAX, "%c" SL_SPAN_FMT, kind, SL_SPAN_ARG(id));
}

/* false: this process has no such job. */
static bool adopt(struct sl_worker *worker, const char *key, const struct sl_position *position)
{
    struct sl_map_node *node = sl_map_find(&worker->jobs, sl_span_of(key));
    if (node == NULL) {
        return false;
    }
    struct sl_job *job = SL_ITEM(node, struct sl_job, by_key);
    sl_log(SL_LOG_DEBUG, "adopted", SL_SPANF("id", job->id));
    if (job_add_position(job, position) != 0) {
        worker_fail(worker, "out of memory: a record cannot be kept");
    }
    return true;
}

/* Nothing else is held up by it, nor does it pass for the query whose id it bears. */
static void bury(struct sl_job *job, int err, const char *message)
{
    struct sl_worker *worker = job->worker;
    char key[JOB_KEY_MAX];
    make_key('d', &job->record, (struct sl_span){0}, key);
    if (adopt(worker, key, &job->first_position)) {
        job_destroy(job);
        return;
    }
    sl_map_remove(&worker->jobs, &job->by_key);
    memcpy(job->key, key, sizeof(key));
    job->id = sl_span_of(job->key + 1);
    sl_map_add(&worker->jobs, &job->by_key, sl_span_of(job->key));
    sl_arena_fini(&job->arena); /* Decoding may have used it up. */
    job->document = NULL;
    job->batch = NULL;
    job->ended = NULL;
    settle_dead_letter(job, err, message);
}

static void on_undecodable(struct sl_job *job, int rv)
{
    if (rv == -SL_EVERSION) {
        worker_version_unknown(job->worker, &job->record);
        job_destroy(job);
    } else if (rv == -SL_ENOMEM && job->arena.full) {
        bury(job, -SL_ETOOBIG, "decoding it takes more memory than a job may have");
    } else if (rv == -SL_ENOMEM) {
        worker_fail(job->worker, "out of memory: a record cannot be decoded");
        job_destroy(job);
    } else {
        bury(job, rv, job->fault.message);
    }
}

/* In its topic, as far as its timestamp tells. */
static uint32_t waited_ms(const struct sl_worker *worker, const struct sl_record *record)
{
    int64_t ms = sl_coord_now_ms(worker->coord) - record->timestamp_ms;
    if (record->timestamp_ms <= 0 || ms <= 0) {
        return 0;
    }
    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

void intake_record(void *ctx, const struct sl_record *record, const struct sl_position *position)
{
    struct sl_worker *worker = ctx;
    const struct sl_stage_input *input = &worker->stage->inputs[position->topic];
    struct sl_span id = {0};
    char key[JOB_KEY_MAX];
    if (input->kind == SL_INPUT_QUERY) {
        id = sl_record_header(record, "sluice-id");
    }
    make_key(input->bulk ? 'b' : 'q', record, id, key);
    if (adopt(worker, key, position)) {
        return;
    }
    struct sl_job *job = job_create(worker, record, position, key);
    if (job == NULL) {
        worker_fail(worker, "out of memory: a record cannot be kept");
        return;
    }
    take_slot(job);
    job->time.queue_ms = waited_ms(worker, record);
    int rv = intake_decode(job);
    if (rv != 0) {
        on_undecodable(job, rv);
    } else {
        job_admit(job);
    }
}
