/*
 * How this process proves to Kafka who it is, and how Kafka does to it.
 *
 * The options are read once, at start: what contradicts itself and what cannot be read is told
 * then, in one line, because librdkafka would find it with the first connection or ignore it. From
 * then on they are properties of every client.
 *
 * Verification of the broker's certificate and of its name is always on: who has no certificates
 * uses plaintext and knows it.
 *
 * What can go wrong later (an unknown certificate, a wrong password, a listener of another kind)
 * shows when a connection fails, in librdkafka's words and over and over while it tries again. The
 * words name its own properties; VARIABLES says which of our variables they mean. The last such
 * failure is kept for the programs' /readyz: librdkafka tells the same failure of a broker once in
 * 30 s only, so it counts for twice as long.
 */
#include "common/kafka_security.h"

#include "common/clock.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { TROUBLE_MS = 60000, PROPERTIES_MAX = 20 };
enum { PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL };
enum { NO_MECHANISM };

static const char *const protocols[] = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL};
static const char *const mechanisms[] = {"none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL};

#define FIELD(name) offsetof(struct sl_kafka_security, name)
const struct sl_option sl_kafka_security_options[] = {
    {.name = "SLUICE_KAFKA_SECURITY",
     .type = SL_OPT_CHOICE,
     .offset = FIELD(protocol),
     .fallback = "plaintext",
     .choices = protocols,
     .help = "How Kafka is spoken to: ssl is TLS, sasl a name and a password."},
    {.name = "SLUICE_KAFKA_CA_FILE",
     .type = SL_OPT_STRING,
     .offset = FIELD(ca_file),
     .fallback = "",
     .help = "Certificates (PEM) to trust for Kafka instead of the system's."},
    {.name = "SLUICE_KAFKA_CERT_FILE",
     .type = SL_OPT_STRING,
     .offset = FIELD(cert_file),
     .fallback = "",
     .help = "This client's certificate (PEM), where the brokers ask for one."},
    {.name = "SLUICE_KAFKA_KEY_FILE",
     .type = SL_OPT_STRING,
     .offset = FIELD(key_file),
     .fallback = "",
     .help = "Its private key (PEM, without a passphrase)."},
    {.name = "SLUICE_KAFKA_SASL_MECHANISM",
     .type = SL_OPT_CHOICE,
     .offset = FIELD(mechanism),
     .fallback = "none",
     .choices = mechanisms,
     .help = "How the password is proved; needed with sasl_plaintext and sasl_ssl."},
    {.name = "SLUICE_KAFKA_USERNAME",
     .type = SL_OPT_STRING,
     .offset = FIELD(username),
     .fallback = "",
     .help = "The user, for SASL."},
    {.name = "SLUICE_KAFKA_PASSWORD",
     .type = SL_OPT_STRING,
     .offset = FIELD(password),
     .fallback = "",
     .secret = true,
     .help = "The user's password, for SASL."},
    {.name = NULL},
};

static const char LOGIN[] = "SLUICE_KAFKA_USERNAME, SLUICE_KAFKA_PASSWORD";

/* What librdkafka 2 says when a connection fails, the more exact first. */
static const struct {
    const char *text, *variable;
} VARIABLES[] = {
    {"ssl.certificate.location", "SLUICE_KAFKA_CERT_FILE"},
    {"ssl.key.location", "SLUICE_KAFKA_KEY_FILE"},
    {"ssl.ca.location", "SLUICE_KAFKA_CA_FILE"},
    {"certificate required", "SLUICE_KAFKA_CERT_FILE"},
    {"bad certificate", "SLUICE_KAFKA_CERT_FILE"},
    {"alert certificate", "SLUICE_KAFKA_CERT_FILE"},
    {"unknown ca", "SLUICE_KAFKA_CERT_FILE"},
    {"certificate verify failed", "SLUICE_KAFKA_CA_FILE"},
    {"supported mechanisms", "SLUICE_KAFKA_SASL_MECHANISM"},
    {"SASL mechanism handshake", "SLUICE_KAFKA_SASL_MECHANISM"},
    {"SASL auth", LOGIN},
    {"SASL Auth", LOGIN},
    {"SASL SCRAM", LOGIN},
    {"Authentication fail", LOGIN},
    {"security.protocol", "SLUICE_KAFKA_SECURITY"},
    {"SSL ", "SLUICE_KAFKA_SECURITY"},
};

static const char *properties[PROPERTIES_MAX + 1];

static struct {
    pthread_mutex_t mutex;
    uint64_t end_ms;
    char text[512];
    const char *scram_version; /* Of a librdkafka whose SCRAM some brokers refuse; or NULL. */
} trouble = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* --- the check --- */

static int complain(char *why, size_t why_size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int complain(char *why, size_t why_size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, why_size, format, args);
    va_end(args);
    return -SL_EINVAL;
}

static int check_file(const char *variable, const char *path, char *why, size_t why_size)
{
    if (path[0] == '\0' || access(path, R_OK) == 0) {
        return 0;
    }
    return complain(why, why_size, "%s: %s: %s", variable, path, strerror(errno));
}

static int check_tls(const struct sl_kafka_security *security, char *why, size_t why_size)
{
    const struct {
        const char *variable, *path;
    } files[] = {
        {"SLUICE_KAFKA_CA_FILE", security->ca_file},
        {"SLUICE_KAFKA_CERT_FILE", security->cert_file},
        {"SLUICE_KAFKA_KEY_FILE", security->key_file},
    };
    bool tls = security->protocol == SSL || security->protocol == SASL_SSL;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (!tls && files[i].path[0] != '\0') {
            return complain(why, why_size, "%s is set, but SLUICE_KAFKA_SECURITY=%s has no TLS",
                            files[i].variable, protocols[security->protocol]);
        }
    }
    if ((security->cert_file[0] == '\0') != (security->key_file[0] == '\0')) {
        bool key = security->key_file[0] == '\0';
        return complain(why, why_size, "%s is not set, but %s is: a certificate needs its key",
                        files[key ? 2 : 1].variable, files[key ? 1 : 2].variable);
    }
    int rv = 0;
    for (size_t i = 0; rv == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
        rv = check_file(files[i].variable, files[i].path, why, why_size);
    }
    return rv;
}

static int check_sasl(const struct sl_kafka_security *security, char *why, size_t why_size)
{
    bool sasl = security->protocol == SASL_PLAINTEXT || security->protocol == SASL_SSL;
    const struct {
        const char *variable;
        bool set;
    } needed[] = {
        {"SLUICE_KAFKA_SASL_MECHANISM", security->mechanism != NO_MECHANISM},
        {"SLUICE_KAFKA_USERNAME", security->username[0] != '\0'},
        {"SLUICE_KAFKA_PASSWORD", security->password[0] != '\0'},
    };
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (needed[i].set != sasl) {
            return complain(why, why_size,
                            sasl ? "%s is not set, but SLUICE_KAFKA_SECURITY=%s needs it"
                                 : "%s is set, but SLUICE_KAFKA_SECURITY=%s has no SASL",
                            needed[i].variable, protocols[security->protocol]);
        }
    }
    return 0;
}

/* --- the properties --- */

static size_t put(size_t at, const char *name, const char *value)
{
    if (value[0] != '\0') {
        properties[at++] = name;
        properties[at++] = value;
    }
    properties[at] = NULL;
    return at;
}

int sl_kafka_secure(const struct sl_kafka_security *security, char *why, size_t why_size)
{
    int rv = check_sasl(security, why, why_size);
    rv = rv != 0 ? rv : check_tls(security, why, why_size);
    if (rv != 0) {
        return rv;
    }
    size_t at = put(0, "security.protocol", protocols[security->protocol]);
    if (security->protocol == SSL || security->protocol == SASL_SSL) {
        at = put(at, "enable.ssl.certificate.verification", "true");
        at = put(at, "ssl.endpoint.identification.algorithm", "https");
        at = put(at, "ssl.ca.location", security->ca_file);
        at = put(at, "ssl.certificate.location", security->cert_file);
        at = put(at, "ssl.key.location", security->key_file);
    }
    if (security->mechanism != NO_MECHANISM) {
        at = put(at, "sasl.mechanism", mechanisms[security->mechanism]);
        at = put(at, "sasl.username", security->username);
        put(at, "sasl.password", security->password);
    }
    return 0;
}

const char *const *sl_kafka_security_properties(void)
{
    return properties;
}

bool sl_kafka_security_scram(void)
{
    for (size_t i = 0; properties[i] != NULL; i += 2) {
        if (strcmp(properties[i], "sasl.mechanism") == 0) {
            return strncmp(properties[i + 1], "SCRAM", 5) == 0;
        }
    }
    return false;
}

/* --- what goes wrong later --- */

void sl_kafka_scram_hint(const char *version)
{
    pthread_mutex_lock(&trouble.mutex);
    trouble.scram_version = version;
    pthread_mutex_unlock(&trouble.mutex);
}

static const char *security_variable(const char *error)
{
    for (size_t i = 0; i < sizeof(VARIABLES) / sizeof(VARIABLES[0]); i++) {
        if (strstr(error, VARIABLES[i].text) != NULL) {
            return VARIABLES[i].variable;
        }
    }
    return NULL;
}

const char *sl_kafka_variable(const char *error)
{
    const char *variable = security_variable(error);
    return variable != NULL ? variable : "SLUICE_KAFKA_BROKERS";
}

bool sl_kafka_note_trouble(const char *error)
{
    const char *variable = security_variable(error);
    if (variable == NULL) {
        return false;
    }
    pthread_mutex_lock(&trouble.mutex);
    trouble.end_ms = sl_clock_now_ms() + TROUBLE_MS;
    const char *words =
        error[0] == '[' ? strstr(error, "]: ") : NULL; /* After the thread's name. */
    words = words != NULL ? words + 3 : error;
    if (trouble.scram_version != NULL && strcmp(variable, LOGIN) == 0) {
        snprintf(
            trouble.text, sizeof(trouble.text),
            "%s, or SLUICE_KAFKA_SASL_MECHANISM: Kafka 4 refuses SCRAM by librdkafka %s, before "
            "2.6.1: %s",
            variable, trouble.scram_version, words);
    } else {
        snprintf(trouble.text, sizeof(trouble.text), "%s: %s", variable, words);
    }
    for (char *c = trouble.text; *c != '\0'; c++) { /* It may hold the broker's words. */
        *c = (unsigned char)*c < ' ' ? ' ' : *c;
    }
    pthread_mutex_unlock(&trouble.mutex);
    return true;
}

bool sl_kafka_trouble(char *why, size_t why_size)
{
    pthread_mutex_lock(&trouble.mutex);
    bool recent = sl_clock_now_ms() < trouble.end_ms;
    if (recent) {
        snprintf(why, why_size, "%s", trouble.text);
    }
    pthread_mutex_unlock(&trouble.mutex);
    return recent;
}
