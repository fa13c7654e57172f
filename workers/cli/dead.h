/*
 * Dead letters, for the files of `sluice dead`: what a record on a dead-letter topic says of
 * itself, which of them are meant, how they are shown, and what becomes of one that is sent again.
 */
#ifndef SLUICE_WORKERS_CLI_DEAD_H
#define SLUICE_WORKERS_CLI_DEAD_H

#include "common/kafka_scan.h"
#include "workers/cli/terminal.h"

enum { DEAD_TOPIC_MAX = 256, DEAD_TOPICS_MAX = 64, DEAD_HEADERS_MAX = 128 };

/* --- one dead letter (dead_letter.c) --- */

/* Borrows from its record. What its headers do not say is empty, or -1. */
struct dead_letter {
    const struct sl_record *record;
    struct sl_span id; /* sluice-id, or the key. */
    struct sl_span stage, reason, message;
    struct sl_span origin_topic;
    long long origin_partition, origin_offset;
    long long attempt;
};
void dead_read(const struct sl_record *record, struct dead_letter *ret);

struct dead_filter {
    const char *topic;  /* As people write it: `queries`, `sluice.queries.dlq`; NULL: all. */
    const char *reason; /* The class, in any case; NULL: all. */
    long long older_ms, newer_ms; /* Ages; -1: all. */
    int64_t now_ms;               /* From which ages count. */
};
bool dead_filter_matches(const struct dead_filter *filter, const struct dead_letter *letter);
/* The dead-letter topic that is meant by a word: `queries` is `<prefix>.queries.dlq`. */
void dead_topic_name(const char *word, char ret[DEAD_TOPIC_MAX]);

/* Appends `12s`, `5m`, `3h` or `2d`; a time to come counts as now. */
void dead_put_age(int64_t ms, struct sl_buf *out);
/* One line of the table, without newline; NULL: the header. note: in the place of the message, if
 * not NULL. width: of the screen, 0: nothing is cut. */
void dead_put_row(const struct dead_letter *letter, int64_t now_ms, const char *note, int width,
                  struct sl_buf *out);
void dead_put_json(const struct dead_letter *letter, int64_t now_ms, struct sl_buf *out);

/* Whether it can be sent again. */
enum dead_fate {
    DEAD_SEND,
    DEAD_WORN_OUT, /* It was tried SLUICE_DEAD_ATTEMPTS times. */
    DEAD_FOREIGN,  /* Its headers name no topic of ours as its origin, or are too many. */
    DEAD_HOMELESS  /* That topic does not exist; dead_move finds out. */
};
enum dead_fate dead_judge(const struct dead_letter *letter);

/* A dead letter as its origin gets it again. Points into itself and the letter. */
struct dead_restored {
    char topic[DEAD_TOPIC_MAX];
    char id[37]; /* The new one; empty: it is no query. */
    char attempt[24];
    struct sl_kafka_header headers[DEAD_HEADERS_MAX];
    size_t header_count;
};
/* The letter must be fit to DEAD_SEND. The same letter gets the same new id each time, so that a
 * query that is sent twice runs once. */
void dead_restore(const struct dead_letter *letter, bool keep_reply_to, struct dead_restored *ret);

/* --- a value as text (dead_value.c) --- */

/* Appends the value: indented JSON, MessagePack in the same form, plain text, or a hex dump of its
 * first bytes. Returns what it is: "JSON", "MessagePack", "text", "binary". */
const char *dead_put_value(struct sl_span value, struct sl_buf *out);

/* --- all of them (dead.c) --- */

struct dead_source {
    const char *command; /* "dead list", for errors. */
    struct sl_scan *scan;
    size_t count;
    char topics[DEAD_TOPICS_MAX][DEAD_TOPIC_MAX]; /* Sorted. */
    int32_t partitions[DEAD_TOPICS_MAX];
    bool too_many;
    char why[512];
};
/* Finds the dead-letter topics; topic: only this one (as in dead_filter), NULL: all. CLI_DONE, or
 * the exit code, the error told. dead_close follows in any case. */
int dead_open(const char *command, const char *topic, struct dead_source *source);
void dead_close(struct dead_source *source);
/* Tells on stderr what went wrong in the scan, and returns CLI_FAILED. */
int dead_scan_failed(const struct dead_source *source, const char *topic);

/* --- redrive and drop (dead_move.c) --- */

struct dead_move {
    struct dead_filter filter;
    bool drop, yes, keep_reply_to;
};
/* The exit code; everything is told. */
int dead_move(const struct dead_move *move);

#endif
