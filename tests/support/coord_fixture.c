/* See coord_fixture.h. The members share one loop, so that a test sees all of them at each moment.
 */
#include "tests/support/coord_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct sl_limit limits[] = {
    {.name = "CHAT", .limit = 2},
    {.name = "EMBED", .limit = 4, .query_max = 3, .bulk_max = 2},
    {.name = "WIDE", .limit = 8},
};

void cluster_start(struct cluster *cluster, uint32_t ttl_ms)
{
    *cluster = (struct cluster){.ttl_ms = ttl_ms};
    CHECK(sl_loop_create(&cluster->loop) == 0);
    CHECK(sl_metrics_create(200, &cluster->metrics) == 0);
    cluster->redis = redis_fixture_create(NULL);
    redis_fixture_start(cluster->redis);
}

void cluster_stop(struct cluster *cluster)
{
    while (cluster->member_count > 0) {
        sl_coord_destroy(cluster->members[--cluster->member_count]);
    }
    sl_metrics_destroy(cluster->metrics);
    sl_loop_destroy(cluster->loop);
    redis_fixture_destroy(cluster->redis);
}

struct sl_coord *cluster_join(struct cluster *cluster, const char *name)
{
    char why[200];
    struct sl_coord *coord;
    const struct sl_coord_config config = {
        .redis_url = redis_fixture_url(cluster->redis),
        .prefix = "t",
        .boot_id = name,
        .limits = limits,
        .limit_count = sizeof(limits) / sizeof(limits[0]),
        .result_ttl_ms = 600000,
        .orphan_grace_ms = 1000,
        .metrics = cluster->metrics,
        .ttl_ms = cluster->ttl_ms,
    };
    CHECK(cluster->member_count < CLUSTER_MEMBERS);
    CHECK(sl_coord_create(cluster->loop, &config, &coord, why, sizeof(why)) == 0);
    cluster->members[cluster->member_count++] = coord;
    UNTIL(cluster, sl_coord_ready(coord));
    return coord;
}

void cluster_crash(struct cluster *cluster, struct sl_coord *coord)
{
    for (size_t i = 0; i < cluster->member_count; i++) {
        if (cluster->members[i] == coord) {
            cluster->members[i] = cluster->members[--cluster->member_count];
            sl_coord_destroy(coord);
            return;
        }
    }
    CHECK(false && "a member");
}

void cluster_run(struct cluster *cluster, uint64_t ms)
{
    uint64_t until = sl_clock_now_ms() + ms;
    for (uint64_t now = sl_clock_now_ms(); now < until; now = sl_clock_now_ms()) {
        sl_loop_turn(cluster->loop, (int)(until - now < 20 ? until - now : 20));
    }
}

static int connect_to(const struct cluster *cluster)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)redis_fixture_port(cluster->redis))};
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    return fd;
}

/* Until the peer closes, which it does after QUIT. */
static void read_all(int fd, char *ret, size_t size)
{
    size_t len = 0;
    for (ssize_t n = 1; n > 0 && len + 1 < size; len += (size_t)n) {
        n = recv(fd, ret + len, size - 1 - len, 0);
        CHECK(n >= 0);
    }
    ret[len] = '\0';
}

const char *cluster_say(struct cluster *cluster, const char *format, ...)
{
    static char reply[16384];
    char line[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof(line) - 10, format, args);
    va_end(args);
    CHECK(len > 0 && (size_t)len < sizeof(line) - 10);
    strcat(line, "\r\nQUIT\r\n");
    int fd = connect_to(cluster);
    CHECK(send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line));
    read_all(fd, reply, sizeof(reply));
    close(fd);
    char *end = strstr(reply, "+OK\r\n");
    for (char *next = end; next != NULL; next = strstr(next + 1, "+OK\r\n")) {
        end = next;
    }
    CHECK(end != NULL && reply[0] != '-');
    *end = '\0'; /* Of the QUIT. */
    if (reply[0] == '$' && reply[1] == '-') {
        return "";
    }
    char *text = reply[0] == '$' ? strstr(reply, "\r\n") + 2 : reply + (end > reply ? 1 : 0);
    for (end = text + strlen(text); end > text && (end[-1] == '\r' || end[-1] == '\n'); end--) {
        end[-1] = '\0';
    }
    return text;
}

void cluster_skip_quarantine(struct cluster *cluster)
{
    char run_id[41];
    const char *at = strstr(cluster_say(cluster, "INFO server"), "run_id:");
    CHECK(at != NULL);
    snprintf(run_id, sizeof(run_id), "%s", at + 7);
    cluster_say(cluster, "HSET t:epoch since 1 run %s", run_id);
}

long long cluster_commands(struct cluster *cluster, const char *name)
{
    char field[64];
    snprintf(field, sizeof(field), "cmdstat_%s:calls=", name);
    const char *at = strstr(cluster_say(cluster, "INFO commandstats"), field);
    return at != NULL ? atoll(at + strlen(field)) : 0;
}

/* --- permits and jobs --- */

static void on_granted(struct sl_permit *permit, int err)
{
    struct test_permit *p = SL_ITEM(permit, struct test_permit, permit);
    CHECK(err == 0 || err == -SL_EEXPIRED);
    p->granted += err == 0 ? 1 : 0;
    p->expired += err != 0 ? 1 : 0;
}

static void on_permit_lost(struct sl_permit *permit)
{
    CHECK_INT(permit->state, SL_PERMIT_NONE);
    SL_ITEM(permit, struct test_permit, permit)->lost++;
}

void test_permit_init(struct test_permit *p, struct sl_coord *coord, size_t limit, bool bulk)
{
    *p = (struct test_permit){.coord = coord};
    sl_permit_init(&p->permit, limit, bulk, on_granted, on_permit_lost);
}

void test_permit_request(struct test_permit *p, int64_t in_ms)
{
    sl_permit_request(p->coord, &p->permit, sl_coord_now_ms(p->coord) + in_ms);
}

static void on_verdict(struct sl_admission *admission, enum sl_verdict verdict)
{
    struct test_job *job = SL_ITEM(admission, struct test_job, admission);
    job->verdicts++;
    job->verdict = verdict;
    snprintf(job->ending, sizeof(job->ending), SL_SPAN_FMT, SL_SPAN_ARG(admission->ending));
}

static void on_retry(struct sl_admission *admission)
{
    SL_ITEM(admission, struct test_job, admission)->retries++;
}

static void on_cancelled(struct sl_admission *admission)
{
    SL_ITEM(admission, struct test_job, admission)->cancelled++;
}

static void on_lost(struct sl_admission *admission)
{
    SL_ITEM(admission, struct test_job, admission)->lost++;
}

static void on_suspect(struct sl_admission *admission)
{
    SL_ITEM(admission, struct test_job, admission)->suspected++;
}

void test_job_init(struct test_job *job, struct sl_coord *coord, const char *id)
{
    *job = (struct test_job){.coord = coord};
    job->admission.id = sl_span_of(id);
    job->admission.stage = "test";
    job->admission.deadline_ms = sl_coord_now_ms(coord) + 60000;
    job->admission.on_verdict = on_verdict;
    job->admission.on_retry = on_retry;
    job->admission.on_cancelled = on_cancelled;
    job->admission.on_lost = on_lost;
    job->admission.on_suspect = on_suspect;
}

void test_job_want(struct test_job *job, size_t limit)
{
    size_t i = job->admission.permits[0] == NULL ? 0 : 1;
    test_permit_init(&job->permits[i], job->coord, limit, job->admission.bulk);
    job->admission.permits[i] = &job->permits[i].permit;
}

void test_job_admit(struct test_job *job)
{
    sl_admit(job->coord, &job->admission);
}

static void on_done(void *ctx, int err)
{
    struct test_job *job = ctx;
    job->done_calls++;
    job->done_err = err;
}

void test_job_done(struct test_job *job)
{
    sl_claim_done(job->coord, &job->admission, on_done, job);
}

enum sl_verdict test_job_verdict(struct cluster *cluster, struct test_job *job)
{
    int before = job->verdicts;
    UNTIL(cluster, job->verdicts > before);
    return job->verdict;
}
