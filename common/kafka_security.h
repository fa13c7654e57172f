/*
 * TLS and SASL towards Kafka: the options, their check, and what the connections of this process
 * last failed of. It holds for every Kafka client of the process, so that none can be forgotten.
 */
#ifndef SLUICE_COMMON_KAFKA_SECURITY_H
#define SLUICE_COMMON_KAFKA_SECURITY_H

#include "common/options.h"

struct sl_kafka_security {
    int protocol, mechanism; /* Indexes in the choices of the options. */
    const char *ca_file, *cert_file, *key_file, *username, *password; /* "": not set. */
};

/* The table whose values are a struct sl_kafka_security. */
extern const struct sl_option sl_kafka_security_options[];

/* For every client that is created from now on; before the first one. Strings are borrowed until
 * the process ends. -SL_EINVAL: they contradict each other or a file cannot be read; why is one
 * line that names the variable, and nothing has changed. */
int sl_kafka_secure(const struct sl_kafka_security *security, char *why,
                    size_t why_size) SL_CHECKED;

/* The variable that an error of librdkafka's points to: that of the brokers when it is about
 * neither TLS nor SASL. */
const char *sl_kafka_variable(const char *error);

/* What a connection of this process failed of within the last minute, if that was TLS or SASL: one
 * line that begins with the variable. False, and why untouched: nothing. Any thread. */
bool sl_kafka_trouble(char *why, size_t why_size);

/* --- for kafka.c --- */

/* librdkafka's properties, name and value in turn, NULL at the end. */
const char *const *sl_kafka_security_properties(void);
bool sl_kafka_security_scram(void); /* Passwords are proved by SCRAM. */
/* This librdkafka's SCRAM is refused by some brokers: refusals say so from now on. */
void sl_kafka_scram_hint(const char *version);
/* A connection failed; any thread. True: of TLS or SASL. */
bool sl_kafka_note_trouble(const char *error);

#endif
