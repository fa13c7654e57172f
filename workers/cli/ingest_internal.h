/* What the three files of a run of ingestion share: ingest_run.c, its beginning and end;
 * ingest_send.c, from files to the topic; ingest_watch.c, its account. */
#ifndef SLUICE_WORKERS_CLI_INGEST_INTERNAL_H
#define SLUICE_WORKERS_CLI_INGEST_INTERNAL_H

#include "common/ingest_account.h"
#include "common/kafka.h"
#include "workers/cli/ingest_run.h"
#include "workers/cli/read.h"
#include "workers/cli/terminal.h"

enum {
    INGEST_AHEAD = 1000,            /* Documents that are sent and not counted yet; and */
    INGEST_AHEAD_BYTES = 256 << 20, /* so many bytes of them. */
    INGEST_REFUSALS = 64,           /* That the account has not acknowledged. */
    INGEST_NAME = 256,
};

struct ingest_state;

/* The one file that is read on the thread pool, and becomes a message there. */
struct ingest_reading {
    struct ingest_state *state;
    const struct cli_file *file;
    struct sl_buf text, message;
    bool busy;                   /* On the pool. */
    bool ready;                  /* message waits for room in the producer. */
    char why[CLI_WHY_MAX + 256]; /* Why it cannot be a document; empty: it can. */
};

/* How much there was at a time, for the rate. */
struct ingest_mark {
    uint64_t at_ms, seen, chunks;
};

struct ingest_state {
    struct cli_ingest_run *run;
    struct sl_loop *loop;
    struct sl_signal *sigint, *sigterm;
    struct sl_producer *producer;
    struct sl_redis *redis;
    struct sl_ingest_env env;
    struct cli_progress_line line;
    struct sl_timer tick;
    struct ingest_mark marks[2]; /* The older first. */
    uint64_t began_ms, moved_ms;
    uint64_t leave_by_ms; /* leaving: then it ends, whatever is still on its way. */
    bool leaving;         /* No more is sent; what is on its way is closed in the account. */
    bool interrupted, over;

    /* ingest_send.c */
    char topic[INGEST_NAME];
    struct ingest_reading reading;
    size_t next;                       /* The first file that was not begun. */
    size_t in_flight, in_flight_bytes; /* At the producer. */
    size_t sizes[INGEST_AHEAD];        /* Of what is sent and not counted, as a ring. */
    size_t ahead_bytes;
    uint64_t passed; /* Of those sent: how many are counted. */

    /* ingest_watch.c */
    char redis_why[160]; /* Why Redis cannot be asked; empty while it can. */
    struct sl_list refusals;
    size_t refusal_count;
    bool asking;                /* The runs, the begin or the account: an answer is due. */
    bool looked;                /* Other runs were looked at. */
    bool closing, closed;       /* Asked; acknowledged. */
    struct sl_ingest_run known; /* The account's numbers; its spans are not to be used. */
    size_t failures_known;
    char waiting[192]; /* What it waits for. */
};

/* --- ingest_run.c --- */

/* Something happened: the time-out begins anew. */
void ingest_moved(struct ingest_state *state);
/* Ends the run early; the first reason counts. */
void ingest_give_up(struct ingest_state *state, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Ends the run now. */
void ingest_end(struct ingest_state *state);

/* --- ingest_send.c --- */

/* Reads and sends what there is room for. */
void ingest_pump(struct ingest_state *state);
/* Every file was sent or refused, or no more are to be. */
bool ingest_all_sent(const struct ingest_state *state);
/* The account has counted so many of those sent. */
void ingest_counted(struct ingest_state *state, uint64_t count);

/* --- ingest_watch.c --- */

/* Asks what is due: the begin, refusals, the close. */
void ingest_watch(struct ingest_state *state);
/* That, and how far the run is; nothing while an answer is due. */
void ingest_read_account(struct ingest_state *state);
/* The file will never be on the topic. */
void ingest_refuse(struct ingest_state *state, const struct cli_file *file, const char *why);
void ingest_watch_fini(struct ingest_state *state);

#endif
