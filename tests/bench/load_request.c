/*
 * The text is built once: head, question, earlier messages. The question is padded to its length
 * with blanks, so that a number that grows changes no Content-Length, and writing a request costs
 * nothing but its number.
 *
 * What can go wrong: a URL that is not one, a name that does not resolve.
 */
#include "tests/bench/load_request.h"

#include "common/http_text.h"

#include <netdb.h>
#include <stdio.h>

enum {
    TEXT_MAX = 1 << 20,
    PEER_MAX = 300,
    NUMBER_WIDTH = 16, /* Of the question's bytes: "Question 123456:". */
};

static const char WORDS[] = "what is kept? ";
static const char MESSAGE[] = "An earlier message of this conversation, long enough to count: what "
                              "keeps a consumer's place when its worker restarts, and how long?";

static int look_up(struct load_request *request, char *peer)
{
    char *colon = strrchr(peer, ':');
    if (colon == NULL) {
        return -1;
    }
    *colon = '\0';
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rv = getaddrinfo(peer, colon + 1, &hints, &found);
    *colon = ':';
    if (rv != 0) {
        fprintf(stderr, "bench_load: %s: %s\n", peer, gai_strerror(rv));
        return -1;
    }
    memcpy(&request->address, found->ai_addr, found->ai_addrlen);
    request->address_len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static void append_body(struct load_request *request, const struct measure_options *options,
                        struct sl_buf *body)
{
    sl_buf_append_text(body, "{\"query\":\"");
    request->question_at = body->len;
    request->question_len = (size_t)options->query_bytes;
    for (long i = 0; i < options->query_bytes; i++) {
        sl_buf_append(body, i < NUMBER_WIDTH ? " " : &WORDS[i % (long)(sizeof(WORDS) - 1)], 1);
    }
    sl_buf_append_text(body, "\"");
    for (long i = 0; i < options->history; i++) {
        sl_buf_printf(body, "%s{\"role\":\"%s\",\"content\":\"%s\"}",
                      i == 0 ? ",\"history\":[" : ",", i % 2 == 0 ? "user" : "assistant", MESSAGE);
    }
    sl_buf_append_text(body, options->history > 0 ? "]}" : "}");
}

static int build(struct load_request *request, const struct measure_options *options,
                 const char *peer)
{
    struct sl_buf body;
    sl_buf_init(&body, TEXT_MAX);
    append_body(request, options, &body);
    const char *path = strchr(options->target + strlen("http://"), '/');
    sl_buf_printf(&request->text,
                  "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                  "Accept: text/event-stream\r\nContent-Length: %zu\r\n\r\n",
                  path != NULL ? path : "/", peer, body.len);
    request->question_at += request->text.len;
    sl_buf_append_span(&request->text, sl_buf_span(&body));
    int rv = sl_buf_error(&body) != 0 ? sl_buf_error(&body) : sl_buf_error(&request->text);
    sl_buf_fini(&body);
    if (rv != 0) {
        fprintf(stderr, "bench_load: the request: %s\n", sl_error_text(rv));
        return -1;
    }
    return 0;
}

int load_request_init(struct load_request *request, const struct measure_options *options)
{
    char peer[PEER_MAX];
    *request = (struct load_request){0};
    sl_buf_init(&request->text, TEXT_MAX);
    if (sl_http_url_peer(options->target, peer, sizeof(peer)) != 0) {
        fprintf(stderr, "bench_load: %s is not a URL\n", options->target);
        return -1;
    }
    return look_up(request, peer) == 0 ? build(request, options, peer) : -1;
}

void load_request_fini(struct load_request *request)
{
    sl_buf_fini(&request->text);
}

struct sl_span load_request_text(struct load_request *request, uint64_t number)
{
    char text[NUMBER_WIDTH + 1];
    int len = snprintf(text, sizeof(text), "Question %u:", (unsigned)(number % 1000000));
    char *question = request->text.data + request->question_at;
    memset(question, ' ', NUMBER_WIDTH);
    memcpy(question, text, (size_t)len);
    return sl_buf_span(&request->text);
}
