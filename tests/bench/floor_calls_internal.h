/* What floor_calls_client.c (curl and the turns) and floor_calls_question.c share. */
#ifndef TESTS_BENCH_FLOOR_CALLS_INTERNAL_H
#define TESTS_BENCH_FLOOR_CALLS_INTERNAL_H

#include "tests/bench/floor_calls.h"

#include <curl/curl.h>

enum { URL_SIZE = 512 };

struct question;

struct transfer {
    struct question *question;
    enum calls_kind kind;
    CURL *easy;
    struct sl_buf request, answer;
    bool running;
};

struct question {
    struct sl_list node; /* In the client's free ones, or in none. */
    struct measure_call call;
    struct calls_client *client;
    struct transfer transfers[CALLS_KINDS];
    struct sl_buf text;
    struct calls_passages passages;
    struct calls_stream stream;
    bool searched; /* One of the two searches is done. */
    bool garbled;
    struct question *next_made; /* Of all that the client has made. */
};

struct multi {
    struct calls_client *client;
    enum calls_kind kind;
    CURLM *handle;
    uint64_t due_ns; /* When curl wants to be called. */
};

struct calls_client {
    const struct measure_options *options;
    struct measure_run *run;
    struct multi multis[CALLS_KINDS];
    struct curl_slist *headers;
    struct sl_list free;
    struct question *made; /* All of them. */
    char urls[CALLS_KINDS][URL_SIZE];
    uint64_t number;
    int epoll_fd, signal_fd;
};

/* One to use, new or used before; NULL when memory ran out. */
struct question *question_take(struct calls_client *client);
void question_give_back(struct question *question); /* Aborts calls that run. */
void question_start(struct question *question);     /* Its measure_call is open. */
/* One of its calls has ended with status 200: takes the answer and makes the next call. */
void question_on_ended(struct question *question, enum calls_kind kind);
/* Closes its measure_call and gives it back. */
void question_fail(struct question *question, enum measure_failure failure);
void question_destroy(struct question *question);

#endif
