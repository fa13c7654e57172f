/*
 * The account of a run of ingestion: other runs are looked at, for a warning; the run begins; its
 * files that cannot be documents are refused; it is closed when the last document is on the topic;
 * and from its begin to its end it is read, some times a second.
 *
 * Each question can be asked again, and is, until it is answered: Redis may be away for a while. A
 * begun run that Redis does not know any more has lost its counts with everything else that Redis
 * had; that ends the run, since it would wait for ever.
 */
#include "workers/cli/ingest_internal.h"

#include <stdio.h>
#include <stdlib.h>

enum { RUNS_MAX = 100, WAITING_MAX = 512 };

struct refusal {
    struct sl_list node;
    struct ingest_state *state;
    char *why; /* In the same piece of memory. */
    bool asked;
    char doc_id[];
};

static void keep_why(struct ingest_state *state, int err)
{
    snprintf(state->redis_why, sizeof(state->redis_why), "%s", sl_error_text(err));
}

/* --- before the begin --- */

/* A directory's run, told by its source: those of HTTP and of deletions have none. */
static bool has_root(struct sl_span source)
{
    static const char *const no_roots[] = {"standard input on ", "POST ", "DELETE ",
                                           "sluice documents "};
    for (size_t i = 0; i < sizeof(no_roots) / sizeof(no_roots[0]); i++) {
        if (sl_span_begins(source, no_roots[i])) {
            return false;
        }
    }
    return source.len > 0;
}

static void warn_of(struct ingest_state *state, const struct sl_ingest_run *other)
{
    const struct cli_terminal *terminal = &state->line.terminal;
    cli_progress_end(&state->line);
    fprintf(stderr, "%swarning%s: the collection %s was filled from ",
            cli_style(terminal, CLI_YELLOW), cli_style(terminal, CLI_PLAIN),
            state->run->collection);
    cli_put_text(terminal, other->source);
    fputs(" before: documents of the same path are replaced; --collection NAME keeps two "
          "directories apart\n",
          stderr);
}

static void on_runs(void *ctx, int err, const struct sl_ingest_run *runs, size_t len)
{
    struct ingest_state *state = ctx;
    state->asking = false;
    if (state->over) {
        return;
    }
    if (err != 0) {
        keep_why(state, err);
        return;
    }
    state->looked = true;
    size_t last = 0; /* The collection's last run of a directory: the warning comes once. */
    while (last < len && !(has_root(runs[last].source) &&
                           sl_span_is(runs[last].collection, state->run->collection))) {
        last++;
    }
    if (last < len && has_root(state->run->source) &&
        !sl_span_equal(runs[last].source, state->run->source)) {
        warn_of(state, &runs[last]);
    }
    ingest_watch(state);
}

static void on_begun(void *ctx, int err)
{
    struct ingest_state *state = ctx;
    state->asking = false;
    if (state->over) {
        return;
    }
    if (err != 0) {
        keep_why(state, err);
        return;
    }
    state->run->begun = true;
    ingest_moved(state);
    ingest_pump(state);
    ingest_watch(state);
}

/* --- refusals --- */

static void ask_refusals(struct ingest_state *state);

static void on_refused(void *ctx, int err)
{
    struct refusal *refusal = ctx;
    struct ingest_state *state = refusal->state;
    refusal->asked = false;
    if (state->over || (err != 0 && err != -SL_ENOENT)) {
        return; /* Asked again at the next tick. */
    }
    sl_list_remove(&refusal->node);
    free(refusal);
    state->refusal_count--;
    ingest_moved(state);
    ingest_pump(state);
    ingest_watch(state);
}

static void ask_refusals(struct ingest_state *state)
{
    SL_LIST_EACH(node, &state->refusals)
    {
        struct refusal *refusal = SL_ITEM(node, struct refusal, node);
        if (!refusal->asked) {
            refusal->asked = sl_ingest_refuse(&state->env, sl_span_of(state->run->ingest_id),
                                              sl_span_of(refusal->doc_id), sl_span_of(refusal->why),
                                              on_refused, refusal) == 0;
        }
    }
}

void ingest_refuse(struct ingest_state *state, const struct cli_file *file, const char *why)
{
    struct sl_buf name;
    sl_buf_init(&name, 1 << 16);
    cli_put_name(&name, file->id);
    size_t why_size = strlen(why) + 1;
    struct refusal *refusal = malloc(sizeof(*refusal) + name.len + 1 + why_size);
    if (refusal == NULL || sl_buf_error(&name) != 0) {
        free(refusal);
        ingest_give_up(state, "%s", sl_error_text(-SL_ENOMEM));
    } else {
        *refusal = (struct refusal){.state = state, .why = refusal->doc_id + name.len + 1};
        memcpy(refusal->doc_id, name.data, name.len);
        refusal->doc_id[name.len] = '\0';
        memcpy(refusal->why, why, why_size);
        sl_list_push(&state->refusals, &refusal->node);
        state->refusal_count++;
        ask_refusals(state);
    }
    sl_buf_fini(&name);
}

void ingest_watch_fini(struct ingest_state *state)
{
    while (!sl_list_empty(&state->refusals)) {
        struct sl_list *node = sl_list_first(&state->refusals);
        sl_list_remove(node);
        free(SL_ITEM(node, struct refusal, node));
    }
}

/* --- closing --- */

static void on_closed(void *ctx, int err)
{
    struct ingest_state *state = ctx;
    state->closing = false;
    if (state->over) {
        return;
    }
    if (err == 0) {
        state->closed = true;
        ingest_moved(state);
    } else {
        keep_why(state, err);
    }
    ingest_watch(state);
}

/* Once it is certain how many are on the topic; or, when the run must end, how many surely are. */
static void close_when_sent(struct ingest_state *state)
{
    bool late = state->leaving && sl_loop_now_ms(state->loop) + 1000 >= state->leave_by_ms;
    bool all = ingest_all_sent(state) && state->refusal_count == 0;
    if (state->run->begun && !state->closed && !state->closing && (all || late)) {
        state->closing = sl_ingest_close(&state->env, sl_span_of(state->run->ingest_id),
                                         state->run->sent, on_closed, state) == 0;
    }
}

/* --- reading --- */

static void add_failure(struct ingest_state *state, const struct sl_ingest_failure *told)
{
    struct cli_ingest_run *run = state->run;
    if (run->failure_count == run->failure_cap) {
        size_t cap = run->failure_cap > 0 ? run->failure_cap * 2 : 16;
        struct cli_failure *failures = realloc(run->failures, cap * sizeof(*failures));
        if (failures == NULL) {
            return; /* It is counted. */
        }
        run->failures = failures;
        run->failure_cap = cap;
    }
    struct cli_failure failure = {strndup(told->doc_id.data, told->doc_id.len),
                                  strndup(told->reason.data, told->reason.len)};
    if (failure.doc_id == NULL || failure.reason == NULL) {
        free(failure.doc_id);
        free(failure.reason);
        return;
    }
    run->failures[run->failure_count++] = failure;
}

static bool is_same(const struct sl_ingest_run *a, const struct sl_ingest_run *b)
{
    return a->processed == b->processed && a->failed == b->failed && a->skipped == b->skipped &&
           a->taken == b->taken && a->stored_chunks == b->stored_chunks &&
           a->waiting_chunks == b->waiting_chunks;
}

static void take_run(struct ingest_state *state, const struct sl_ingest_run *told)
{
    struct cli_ingest_run *run = state->run;
    struct sl_buf waiting;
    if (!is_same(told, &state->known)) {
        ingest_moved(state);
    }
    state->known = *told;
    run->processed = told->processed;
    run->failed = told->failed;
    run->skipped = told->skipped;
    run->total_chunks = told->total_chunks;
    for (size_t i = 0; i < told->failure_count; i++) {
        add_failure(state, &told->failures[i]);
    }
    state->failures_known += told->failure_count;
    sl_buf_init(&waiting, WAITING_MAX);
    sl_ingest_run_waiting(told, &waiting);
    snprintf(state->waiting, sizeof(state->waiting), SL_SPAN_FMT, (int)waiting.len,
             waiting.len > 0 ? waiting.data : "");
    sl_buf_fini(&waiting);
    ingest_counted(state, told->processed + told->failed - told->refused + told->skipped);
}

static void on_run(void *ctx, int err, const struct sl_ingest_run *told)
{
    struct ingest_state *state = ctx;
    state->asking = false;
    if (state->over) {
        return;
    }
    if (err == -SL_ENOENT) {
        ingest_give_up(state, "Redis has lost the account of this run: run it again, what is "
                              "stored already is not done twice");
        ingest_end(state);
        return;
    }
    if (err != 0) {
        keep_why(state, err);
        return;
    }
    state->redis_why[0] = '\0';
    take_run(state, told);
    if (state->closed && (told->ended || state->leaving)) {
        ingest_end(state);
        return;
    }
    ingest_pump(state);
}

/* --- what is next --- */

void ingest_watch(struct ingest_state *state)
{
    const struct cli_ingest_run *run = state->run;
    struct sl_span id = sl_span_of(run->ingest_id);
    if (state->over || !sl_redis_up(state->redis)) {
        return;
    }
    ask_refusals(state);
    close_when_sent(state);
    if (state->asking || run->begun || state->leaving) {
        return;
    }
    if (!state->looked) {
        state->asking = sl_ingest_runs(&state->env, RUNS_MAX, on_runs, state) == 0;
    } else {
        state->asking = sl_ingest_begin(&state->env, id, sl_span_of(run->collection), run->source,
                                        on_begun, state) == 0;
    }
}

void ingest_read_account(struct ingest_state *state)
{
    ingest_watch(state);
    if (!state->over && !state->asking && state->run->begun && sl_redis_up(state->redis)) {
        state->asking = sl_ingest_read(&state->env, sl_span_of(state->run->ingest_id),
                                       state->failures_known, on_run, state) == 0;
    }
}
