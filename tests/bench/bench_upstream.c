/*
 * bench_upstream: all models and stores of a benchmark in one small process, with exact latencies.
 *
 * Every answer goes out a fixed time after the last byte of its request. What the stub costs and
 * how late it was itself is in GET /stats, so that a benchmark can show that it measured the
 * pipeline. tests/support/upstream.py plays the same parts for tests, with faults and real
 * searches, at some twenty times the cost.
 *
 * Where to look: upstream_server.h names the files.
 */
#include "upstream_server.h"

#include <stdio.h>
#include <stdlib.h>

static const char usage_begin[] =
    "usage: bench_upstream [--listen HOST:PORT] [--OPTION N ...]\n"
    "\n"
    "Plays embeddings, vector and keyword search, rerank and chat with exact latencies, for\n"
    "benchmarks. Prints port=NNNN once it listens; SIGTERM ends it.\n"
    "\n"
    "  --listen HOST:PORT   IPv4; port 0 takes a free one (127.0.0.1:0)\n";
static const char usage_end[] =
    "  --help               this text\n"
    "\n"
    "Times are whole milliseconds. PUT /behaviour with a JSON object of these names (with '_')\n"
    "changes them for later requests. GET /stats tells calls, peaks, aborted calls, how late the\n"
    "stub's own writes were, and its CPU since it started; POST /stats/reset counts from zero.\n"
    "\n"
    "examples:\n"
    "  bench_upstream\n"
    "  bench_upstream --listen 127.0.0.1:8099 --tokens 20 --interval-ms 100\n"
    "  curl -X PUT localhost:8099/behaviour -d '{\"embed_ms\":0,\"chat_ms\":0}'\n"
    "  curl localhost:8099/stats\n";

static int print_help(void)
{
    struct sl_buf text;
    sl_buf_init(&text, 8192);
    sl_buf_append_text(&text, usage_begin);
    upstream_behaviour_help(&text);
    sl_buf_append_text(&text, usage_end);
    int failed = sl_buf_error(&text) != 0 || fwrite(text.data, 1, text.len, stdout) != text.len;
    sl_buf_fini(&text);
    return failed || fflush(stdout) != 0 ? 1 : 0;
}

/* One option and its value, as `--name value` or `--name=value`; how many words that are, or 0 with
 * the reason in why. */
static int read_option(char *const *words, struct upstream_behaviour *behaviour,
                       const char **listen_address, char *why, size_t why_size)
{
    const char *equals = strchr(words[0], '=');
    const char *value = equals != NULL ? equals + 1 : words[1];
    size_t len = equals != NULL ? (size_t)(equals - words[0]) : strlen(words[0]);
    if (len < 3 || strncmp(words[0], "--", 2) != 0) {
        snprintf(why, why_size, "unknown argument %s", words[0]);
        return 0;
    }
    struct sl_span name = {words[0] + 2, len - 2};
    if (sl_span_is(name, "listen") && value != NULL) {
        *listen_address = value;
        return equals != NULL ? 1 : 2;
    }
    int rv = upstream_behaviour_set(behaviour, name, sl_span_of(value), why, why_size);
    if (rv == -SL_ENOENT) {
        snprintf(why, why_size, "unknown option or no value: %s", words[0]);
    }
    return rv != 0 ? 0 : equals != NULL ? 1 : 2;
}

static int serve(const char *address, const struct upstream_behaviour *behaviour)
{
    char why[200];
    struct upstream_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        fprintf(stderr, "bench_upstream: out of memory\n");
        return 1;
    }
    int rv = upstream_server_init(server, address, behaviour, why, sizeof(why));
    if (rv != 0) {
        fprintf(stderr, "bench_upstream: %s\n", why);
    } else {
        printf("port=%d\n", upstream_server_port(server));
        fflush(stdout);
        rv = upstream_server_run(server);
    }
    upstream_server_fini(server);
    free(server);
    return rv == 0 ? 0 : rv == -SL_EINVAL ? 2 : 1;
}

int main(int argc, char **argv)
{
    const char *address = "127.0.0.1:0";
    struct upstream_behaviour behaviour;
    upstream_behaviour_init(&behaviour);
    for (int i = 1; i < argc;) {
        char why[200];
        if (strcmp(argv[i], "--help") == 0) {
            return print_help();
        }
        int words = read_option(argv + i, &behaviour, &address, why, sizeof(why));
        if (words == 0) {
            fprintf(stderr, "bench_upstream: %s (see --help)\n", why);
            return 2;
        }
        i += words;
    }
    return serve(address, &behaviour);
}
