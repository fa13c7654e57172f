/*
 * A guardian process stands between the test and the broker: it starts Java, waits for its own end
 * (asked for at exit, or signalled by the kernel when the test dies), kills Java by its pid and
 * removes the data. So a test that aborts leaves nothing behind.
 */
#include "tests/support/kafka_fixture.h"

#include "common/clock.h"
#include "common/kafka.h"
#include "tests/support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIBS ".local/kafka/libs"

enum { READY_LIMIT_MS = 60000, TRY_MS = 2000, TOPICS_MAX = 64 };

static char brokers[64];
static char directory[] = "/tmp/sluice-kafka-XXXXXX";
static pid_t guardian;
static pid_t owner; /* The process that started it: a fork of it must not stop it. */

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 &&
          getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void write_properties(const char *path, int port, int controller_port)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    fprintf(file,
            "process.roles=broker,controller\n"
            "node.id=1\n"
            "controller.quorum.voters=1@127.0.0.1:%d\n"
            "listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d\n"
            "advertised.listeners=PLAINTEXT://127.0.0.1:%d\n"
            "controller.listener.names=CONTROLLER\n"
            "log.dirs=%s/data\n"
            "offsets.topic.replication.factor=1\n"
            "offsets.topic.num.partitions=1\n"
            "transaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\n"
            "share.coordinator.state.topic.replication.factor=1\n"
            "share.coordinator.state.topic.min.isr=1\n"
            "group.initial.rebalance.delay.ms=0\n"
            "auto.create.topics.enable=false\n"
            "message.max.bytes=26214400\n",
            controller_port, port, controller_port, port, directory);
    CHECK(fclose(file) == 0);
}

/* Runs Java with its output in DIRECTORY/log; only returns in the parent. */
static pid_t run_java(const char *const *arguments)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    char log[128];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(log, sizeof(log), "%s/log", directory);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) {
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
    }
    execvp("java", (char *const *)(uintptr_t)arguments);
    _exit(127);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* Formats the data, then runs the broker, until it ends or the guardian is told to; its pid if it
 * still runs. */
static pid_t run_broker(const char *properties, const sigset_t *awaited)
{
    static const char uuid[] = "4L6g3nShT-eMCtK--X86sw";
    /* clang-format off */
    const char *const format[] = {
        "java", "-cp", LIBS "/*", "kafka.tools.StorageTool", "format", "-t", uuid, "-c", properties,
        NULL,
    };
    const char *const start[] = {
        "java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        "-cp", LIBS "/*", "kafka.Kafka", properties, NULL,
    };
    /* clang-format on */
    bool formatted = false;
    pid_t java = run_java(format);
    for (;;) {
        int signum = 0, status = 0;
        sigwait(awaited, &signum);
        if (signum == SIGTERM) {
            return java;
        }
        if (waitpid(java, &status, WNOHANG) == java) {
            if (formatted || status != 0) {
                return 0;
            }
            formatted = true;
            java = run_java(start);
        }
    }
}

/* The guardian's life; never returns. */
static void guard(pid_t test, const char *properties)
{
    sigset_t awaited;
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGTERM);
    sigaddset(&awaited, SIGCHLD);
    sigprocmask(SIG_BLOCK, &awaited, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C ends the test, and that ends the guardian. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    pid_t java = getppid() == test ? run_broker(properties, &awaited) : 0;
    if (java > 0) {
        kill(java, SIGKILL);
        waitpid(java, NULL, 0);
    }
    nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    _exit(0);
}

static void stop(void)
{
    if (guardian > 0 && getpid() == owner) {
        kill(guardian, SIGTERM);
        waitpid(guardian, NULL, 0);
        guardian = 0;
    }
}

static void start_broker(void)
{
    char properties[128];
    CHECK(access(LIBS, R_OK) == 0); /* deploy/setup installs the broker there. */
    CHECK(mkdtemp(directory) != NULL);
    int port = free_port(), controller_port = free_port();
    snprintf(properties, sizeof(properties), "%s/server.properties", directory);
    write_properties(properties, port, controller_port);
    snprintf(brokers, sizeof(brokers), "127.0.0.1:%d", port);
    owner = getpid();
    guardian = fork();
    CHECK(guardian >= 0);
    if (guardian == 0) {
        guard(owner, properties);
    }
    atexit(stop);
}

static void await_broker(void)
{
    const char *const quiet[] = {"log_level", "0", NULL};
    const struct sl_kafka_config config = {brokers, "test", quiet};
    uint64_t end = sl_clock_now_ms() + READY_LIMIT_MS;
    while (sl_kafka_partition_count(&config, "none", TRY_MS) != -SL_ENOENT) {
        CHECK(sl_clock_now_ms() < end);
    }
}

const char *kafka_fixture_brokers(void)
{
    if (brokers[0] == '\0') {
        const char *running = getenv("SLUICE_TEST_BROKERS");
        if (running != NULL && running[0] != '\0') {
            snprintf(brokers, sizeof(brokers), "%s", running);
        } else {
            start_broker();
        }
        await_broker();
    }
    return brokers;
}

const char *kafka_fixture_topic(const char *prefix, int32_t partitions)
{
    static char names[TOPICS_MAX][96];
    static int used;
    char why[256] = "";
    CHECK(used < TOPICS_MAX);
    char *name = names[used++];
    snprintf(name, sizeof(names[0]), "%s.%d.%lld", prefix, used, (long long)sl_clock_unix_ms());
    const struct sl_kafka_config config = {kafka_fixture_brokers(), "test", NULL};
    const struct sl_topic_spec spec = {name, partitions, 1, NULL};
    int result = 0;
    int rc = sl_kafka_create_topics(&config, &spec, 1, 30000, &result, why, sizeof(why));
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", name, why);
    }
    CHECK_INT(rc, 0);
    return name;
}
