/* Kafka's security: what contradicts itself, what becomes of the rest, where errors point. */
#include "common/kafka_security.h"
#include "tests/support/test.h"

enum { PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL };
enum { NONE, PLAIN, SCRAM_256, SCRAM_512 };

static const char readable[] = "/dev/null";

static const char *property(const char *name)
{
    const char *const *p = sl_kafka_security_properties();
    for (; *p != NULL; p += 2) {
        if (strcmp(p[0], name) == 0) {
            return p[1];
        }
    }
    return "";
}

TEST(contradictions_name_the_variable)
{
    static const struct {
        struct sl_kafka_security security;
        const char *says;
    } cases[] = {
        {{PLAINTEXT, NONE, readable, "", "", "", ""}, "SLUICE_KAFKA_CA_FILE is set"},
        {{SASL_PLAINTEXT, PLAIN, readable, "", "", "u", "p"}, "SLUICE_KAFKA_CA_FILE is set"},
        {{PLAINTEXT, PLAIN, "", "", "", "", ""}, "SLUICE_KAFKA_SASL_MECHANISM is set"},
        {{SSL, NONE, "", "", "", "u", ""}, "SLUICE_KAFKA_USERNAME is set"},
        {{SSL, NONE, "", "", "", "", "hush"}, "SLUICE_KAFKA_PASSWORD is set"},
        {{SASL_SSL, NONE, "", "", "", "u", "hush"}, "SLUICE_KAFKA_SASL_MECHANISM is not set"},
        {{SASL_SSL, SCRAM_256, "", "", "", "", "hush"}, "SLUICE_KAFKA_USERNAME is not set"},
        {{SASL_SSL, SCRAM_512, "", "", "", "u", ""}, "SLUICE_KAFKA_PASSWORD is not set"},
        {{SSL, NONE, "", readable, "", "", ""}, "SLUICE_KAFKA_KEY_FILE is not set"},
        {{SSL, NONE, "", "", readable, "", ""}, "SLUICE_KAFKA_CERT_FILE is not set"},
        {{SSL, NONE, "/nowhere", "", "", "", ""}, "SLUICE_KAFKA_CA_FILE: /nowhere: No such file"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char why[256] = "";
        CHECK_INT(sl_kafka_secure(&cases[i].security, why, sizeof(why)), -SL_EINVAL);
        if (strstr(why, cases[i].says) == NULL) {
            CHECK_STR(why, cases[i].says);
        }
        CHECK(strstr(why, "hush") == NULL);
    }
}

TEST(tls_verifies_the_broker_and_its_name)
{
    const struct sl_kafka_security security = {SASL_SSL, SCRAM_512, readable, readable,
                                               readable, "u",       "p"};
    char why[256];
    CHECK_INT(sl_kafka_secure(&security, why, sizeof(why)), 0);
    CHECK_STR(property("security.protocol"), "sasl_ssl");
    CHECK_STR(property("enable.ssl.certificate.verification"), "true");
    CHECK_STR(property("ssl.endpoint.identification.algorithm"), "https");
    CHECK_STR(property("ssl.ca.location"), readable);
    CHECK_STR(property("ssl.certificate.location"), readable);
    CHECK_STR(property("ssl.key.location"), readable);
    CHECK_STR(property("sasl.mechanism"), "SCRAM-SHA-512");
    CHECK_STR(property("sasl.username"), "u");
    CHECK_STR(property("sasl.password"), "p");
}

TEST(plaintext_is_all_that_is_said_without_security)
{
    static const struct sl_kafka_security security = {PLAINTEXT, NONE, "", "", "", "", ""};
    char why[256];
    CHECK_INT(sl_kafka_secure(&security, why, sizeof(why)), 0);
    CHECK_STR(property("security.protocol"), "plaintext");
    CHECK_STR(property("ssl.endpoint.identification.algorithm"), "");
    CHECK_STR(property("sasl.mechanism"), "");
}

TEST(trouble_is_kept_with_its_variable_and_only_of_security)
{
    char why[256] = "untouched";
    CHECK(!sl_kafka_note_trouble("b:1/1: Connect to ipv4#b:1 failed: Connection refused"));
    CHECK(!sl_kafka_trouble(why, sizeof(why)));
    CHECK_STR(why, "untouched");
    CHECK_STR(sl_kafka_variable("Connection refused"), "SLUICE_KAFKA_BROKERS");
    CHECK(sl_kafka_note_trouble("SASL authentication error:\nno"));
    CHECK(sl_kafka_trouble(why, sizeof(why)));
    CHECK_STR(why, "SLUICE_KAFKA_USERNAME, SLUICE_KAFKA_PASSWORD: SASL authentication error: no");
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"contradictions_name_the_variable", contradictions_name_the_variable},
        {"tls_verifies_the_broker_and_its_name", tls_verifies_the_broker_and_its_name},
        {"plaintext_is_all_that_is_said_without_security",
         plaintext_is_all_that_is_said_without_security},
        {"trouble_is_kept_with_its_variable_and_only_of_security",
         trouble_is_kept_with_its_variable_and_only_of_security},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
