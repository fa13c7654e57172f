/*
 * The floor under a question's way through Kafka: a chain of minimal processes, each with one
 * consumer and one producer of librdkafka and the settings of Sluice's workers, that pass a record
 * on and do nothing else. What Sluice adds to a question is compared with this.
 *
 * The order of events: read the options, fork the processes, create the topics, let the chain run
 * (floor_hops_chain.c), end the processes, delete the topics, report. The topics are deleted
 * whatever went wrong after they were created.
 */
#include "common/json.h"
#include "tests/bench/floor_hops.h"
#include "tests/bench/measure_clock.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: bench_floor_hops --brokers HOST:PORT --rate R [option ...]\n"
    "\n"
    "Measures a chain of Kafka hops between minimal processes: the floor of what queues cost.\n"
    "\n"
    "  --brokers HOST:PORT       Kafka\n"
    "  --rate R                  records a second through the whole chain\n"
    "  --seconds S               how long to count (10)\n"
    "  --warmup W                seconds before that (2)\n"
    "  --arrivals poisson|even   when records are due (poisson)\n"
    "  --seed N                  of the arrivals (1)\n"
    "  --hops N                  1 to 16 (5); all but the last end in a process of their own, the\n"
    "                            last one in the first process\n"
    "  --bytes N                 of a record's value, 300 or more (2000)\n"
    "  --partitions N            of each topic, 1 to 256 (12)\n"
    "  --partition-queues        read one queue a partition, as Sluice's workers do, instead of\n"
    "                            one queue for all\n"
    "  --consumer NAME=VALUE     a property of librdkafka's consumers; may be given again\n"
    "  --producer NAME=VALUE     the same for its producers\n"
    "  --broker-pid PID          report the CPU of this process too\n"
    "  --json FILE|-             one JSON object with the results; - is standard output\n"
    "  --help\n"
    "\n"
    "examples:\n"
    "  bench_floor_hops --brokers 127.0.0.1:9092 --rate 44\n"
    "  bench_floor_hops --brokers 127.0.0.1:9092 --rate 440 --json - \\\n"
    "      --producer acks=1 --producer enable.idempotence=false\n"
    "\n"
    "exit status: 0 done or stopped, 1 failed or not all answered, 2 wrong usage\n";

static const struct option names[] = {
    {"brokers", required_argument, NULL, 'b'},
    {"rate", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 's'},
    {"warmup", required_argument, NULL, 'w'},
    {"arrivals", required_argument, NULL, 'a'},
    {"seed", required_argument, NULL, 'x'},
    {"hops", required_argument, NULL, 'n'},
    {"bytes", required_argument, NULL, 'v'},
    {"partitions", required_argument, NULL, 'p'},
    {"partition-queues", no_argument, NULL, 'q'},
    {"consumer", required_argument, NULL, 'C'},
    {"producer", required_argument, NULL, 'P'},
    {"broker-pid", required_argument, NULL, 'k'},
    {"json", required_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* --- options --- */

static bool number(const char *text, double min, double max, double *ret)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    *ret = value;
    return end != text && *end == '\0' && errno == 0 && value >= min && value <= max;
}

static bool property(const char **properties, const char *text)
{
    size_t count = 0;
    while (properties[count] != NULL) {
        count++;
    }
    if (count + 1 >= PROPERTIES_MAX) {
        return false;
    }
    properties[count] = text;
    return true;
}

static bool set_whole(struct hops_options *options, int name, const char *text)
{
    double value = 0;
    bool good = true;
    switch (name) {
    case 'x':
        good = number(text, 0, 1e15, &value);
        options->seed = (uint64_t)value;
        break;
    case 'n':
        good = number(text, 1, HOPS_MAX, &value);
        options->hops = (unsigned)value;
        break;
    case 'v':
        good = number(text, sizeof(struct chain_record), 1 << 24, &value);
        options->bytes = (size_t)value;
        break;
    case 'p':
        good = number(text, 1, PARTITIONS_MAX, &value);
        options->partitions = (unsigned)value;
        break;
    default:
        good = number(text, 1, 1 << 30, &value);
        options->broker = (pid_t)value;
        break;
    }
    return good;
}

static bool set(struct hops_options *options, int name, const char *text)
{
    switch (name) {
    case 'b':
        options->brokers = text;
        return true;
    case 'r':
        return number(text, 0.01, 1e6, &options->rate);
    case 's':
        return number(text, 0.1, 86400, &options->seconds);
    case 'w':
        return number(text, 0, 86400, &options->warmup);
    case 'a':
        options->poisson = strcmp(text, "poisson") == 0;
        return options->poisson || strcmp(text, "even") == 0;
    case 'q':
        options->partition_queues = true;
        return true;
    case 'C':
        return property(options->consumer, text);
    case 'P':
        return property(options->producer, text);
    case 'j':
        options->json = text;
        return true;
    default:
        return set_whole(options, name, text);
    }
}

static int wrong(const char *what, const char *text)
{
    fprintf(stderr, "bench_floor_hops: %s%s; --help lists the options\n", what, text);
    return 2;
}

/* -1 to go on, or the exit status. */
static int parse(struct hops_options *options, int argc, char **argv)
{
    int name;
    opterr = 0;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (name == '?') {
            return wrong("unknown option, or no value: ", argv[optind - 1]);
        }
        if (!set(options, name, optarg)) {
            return wrong("wrong value: ", argv[optind - 1]);
        }
    }
    if (optind < argc) {
        return wrong("unknown argument: ", argv[optind]);
    }
    if (options->brokers == NULL || options->rate <= 0) {
        return wrong("--brokers and --rate are needed", "");
    }
    return hops_conf_check(options) ? -1 : 2;
}

/* --- report --- */

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void put_times(struct sl_json_writer *json, const char *key,
                      const struct measure_histogram *times)
{
    sl_json_key(json, key);
    sl_json_begin_object(json);
    sl_json_key(json, "p50");
    sl_json_put_number(json, ms(measure_histogram_quantile(times, 0.50)));
    sl_json_key(json, "p90");
    sl_json_put_number(json, ms(measure_histogram_quantile(times, 0.90)));
    sl_json_key(json, "p99");
    sl_json_put_number(json, ms(measure_histogram_quantile(times, 0.99)));
    sl_json_key(json, "max");
    sl_json_put_number(json, ms(times->max));
    sl_json_key(json, "mean");
    sl_json_put_number(json, measure_histogram_mean(times) / 1e6);
    sl_json_end_object(json);
}

static void put(struct sl_json_writer *json, const char *key, double value)
{
    sl_json_key(json, key);
    sl_json_put_number(json, value);
}

/* A message is one record over one hop. */
static double us_per_message(const struct hops_options *options, const struct chain_result *result,
                             uint64_t cpu_ns)
{
    return result->answered == 0 ? 0
                                 : (double)cpu_ns / 1e3 / (double)result->answered / options->hops;
}

static int write_json(const struct hops_options *options, const struct chain_result *result)
{
    struct sl_buf text;
    sl_buf_init(&text, 1 << 16);
    struct sl_json_writer json = {.out = &text};
    sl_json_begin_object(&json);
    put(&json, "hops", options->hops);
    put(&json, "rate", options->rate);
    put(&json, "seconds", result->counted_s);
    put(&json, "bytes", (double)options->bytes);
    put(&json, "partitions", options->partitions);
    put_times(&json, "chain_ms", &result->chain);
    put_times(&json, "hop_ms", &result->hop);
    put_times(&json, "start_late_ms", &result->late);
    put(&json, "due", (double)result->due);
    put(&json, "answered", (double)result->answered);
    put(&json, "cpu_us_per_message", us_per_message(options, result, result->cpu_ns));
    put(&json, "cpu_seconds", (double)result->cpu_ns / 1e9);
    if (options->broker != 0) {
        put(&json, "broker_cpu_us_per_message",
            us_per_message(options, result, result->broker_cpu_ns));
        put(&json, "broker_cpu_seconds", (double)result->broker_cpu_ns / 1e9);
    }
    sl_json_end_object(&json);
    sl_buf_append(&text, "\n", 1);
    bool standard = strcmp(options->json, "-") == 0;
    FILE *file = standard ? stdout : fopen(options->json, "w");
    bool good = sl_buf_error(&text) == 0 && file != NULL &&
                fwrite(text.data, 1, text.len, file) == text.len;
    good = file != NULL && (standard ? fflush(file) : fclose(file)) == 0 && good;
    if (!good) {
        fprintf(stderr, "bench_floor_hops: %s: %s\n", options->json, strerror(errno));
    }
    sl_buf_fini(&text);
    return good ? 0 : 1;
}

static int report(const struct hops_options *options, const struct chain_result *result)
{
    const struct measure_histogram *hop = &result->hop, *chain = &result->chain;
    fprintf(stderr,
            "%u hops at %g/s: %llu of %llu answered\n"
            "hop    p50 %.3f ms, p99 %.3f ms, max %.3f ms\n"
            "chain  p50 %.3f ms, p99 %.3f ms, max %.3f ms\n"
            "CPU    %.0f us a message",
            options->hops, options->rate, (unsigned long long)result->answered,
            (unsigned long long)result->due, ms(measure_histogram_quantile(hop, 0.50)),
            ms(measure_histogram_quantile(hop, 0.99)), ms(hop->max),
            ms(measure_histogram_quantile(chain, 0.50)),
            ms(measure_histogram_quantile(chain, 0.99)), ms(chain->max),
            us_per_message(options, result, result->cpu_ns));
    if (options->broker != 0) {
        fprintf(stderr, ", broker %.0f us", us_per_message(options, result, result->broker_cpu_ns));
    }
    fputs("\n", stderr);
    int status = options->json != NULL ? write_json(options, result) : 0;
    return result->answered == result->due ? status : 1;
}

/* --- the run --- */

static int run(const struct hops_options *options, struct chain_result *result)
{
    struct chain *chain = NULL;
    int rc = chain_fork(options, &chain);
    if (rc != 0) {
        return rc;
    }
    rc = hops_topics_create(options);
    if (rc != 0) {
        chain_join(chain);
        return rc;
    }
    rc = chain_run(chain, result);
    chain_join(chain);
    int deleted = hops_topics_delete(options);
    return rc == 0 ? deleted : rc;
}

int main(int argc, char **argv)
{
    static struct chain_result result; /* Large. */
    struct hops_options options = {
        .hops = 5,
        .partitions = 12,
        .seconds = 10,
        .warmup = 2,
        .poisson = true,
        .seed = 1,
        .bytes = 2000,
    };
    int status = parse(&options, argc, argv);
    if (status >= 0) {
        return status;
    }
    sigset_t signals; /* Read by the chain through a descriptor. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    snprintf(options.prefix, sizeof(options.prefix), "floor.%d.%llu", (int)getpid(),
             (unsigned long long)(measure_now_ns() / 1000));
    int rc = run(&options, &result);
    if (rc != 0) {
        return 1;
    }
    return result.stopped ? 0 : report(&options, &result);
}
