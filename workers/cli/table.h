/* A small table of text: columns as wide as their widest cell, two spaces between. */
#ifndef SLUICE_WORKERS_CLI_TABLE_H
#define SLUICE_WORKERS_CLI_TABLE_H

#include "workers/cli/terminal.h"

enum { CLI_COLUMNS = 12, CLI_CELL = 160 };

struct cli_cell {
    char text[CLI_CELL];
    enum cli_style style;
};

struct cli_table {
    const char *align; /* A letter a column: 'l' or 'r'. */
    size_t columns, cells, rows_cap;
    struct cli_cell *cell; /* Row by row. */
    int err;
};

/* align is borrowed. The first row that is added is the header. */
void cli_table_init(struct cli_table *table, const char *align);
void cli_table_fini(struct cli_table *table);
/* The next cell, row by row; a text that is too long is cut. */
void cli_table_cell(struct cli_table *table, enum cli_style style, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 0, or -SL_ENOMEM when a cell did not fit: then nothing was written. */
int cli_table_print(const struct cli_table *table, const struct cli_terminal *terminal) SL_CHECKED;

#endif
