/* What a run found, for a person and for a program. */
#ifndef TESTS_BENCH_MEASURE_REPORT_H
#define TESTS_BENCH_MEASURE_REPORT_H

#include "common/buf.h"
#include "tests/bench/measure_run.h"

/* Appends one JSON object; errors stay in the buf. */
void measure_report_json(const struct measure_run *run, struct sl_buf *out);

/* Prints the summary on stderr and writes the JSON where --json says. 0, or 1 after a line on
 * stderr that says why the file could not be written. */
int measure_report(const struct measure_run *run, const struct measure_program *program);

#endif
