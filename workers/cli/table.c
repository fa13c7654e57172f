/* Tables of text. Cells are kept until the widths are known; numbers stand right, words left, and
 * the last column is not padded, so that no line ends in spaces. */
#include "workers/cli/table.h"

#include <stdarg.h>
#include <stdlib.h>

enum { ROWS = 16 };

void cli_table_init(struct cli_table *table, const char *align)
{
    *table = (struct cli_table){.align = align, .columns = strlen(align)};
}

void cli_table_fini(struct cli_table *table)
{
    free(table->cell);
    table->cell = NULL;
}

void cli_table_cell(struct cli_table *table, enum cli_style style, const char *format, ...)
{
    if (table->err == 0 && table->cells == table->rows_cap * table->columns) {
        size_t rows = table->rows_cap + ROWS;
        struct cli_cell *cell = realloc(table->cell, rows * table->columns * sizeof(*cell));
        if (cell == NULL) {
            table->err = -SL_ENOMEM;
        } else {
            table->cell = cell;
            table->rows_cap = rows;
        }
    }
    if (table->err != 0) {
        return;
    }
    struct cli_cell *cell = &table->cell[table->cells++];
    va_list args;
    va_start(args, format);
    vsnprintf(cell->text, sizeof(cell->text), format, args);
    va_end(args);
    cell->style = table->cells <= table->columns ? CLI_FAINT : style;
}

static void print_cell(const struct cli_table *table, size_t i, size_t width,
                       const struct cli_terminal *terminal)
{
    const struct cli_cell *cell = &table->cell[i];
    size_t own = cli_text_width(sl_span_of(cell->text));
    int pad = (int)(width - own);
    bool first = i % table->columns == 0, last = (i + 1) % table->columns == 0;
    bool right = table->align[i % table->columns] == 'r';
    fprintf(terminal->out, "%s%*s%s", first ? "" : "  ", right ? pad : 0, "",
            cell->style != CLI_PLAIN ? cli_style(terminal, cell->style) : "");
    cli_put_text(terminal, sl_span_of(cell->text));
    fprintf(terminal->out, "%s%*s%s",
            cell->style != CLI_PLAIN ? cli_style(terminal, CLI_PLAIN) : "", right || last ? 0 : pad,
            "", last ? "\n" : "");
}

int cli_table_print(const struct cli_table *table, const struct cli_terminal *terminal)
{
    size_t widths[CLI_COLUMNS] = {0};
    if (table->err != 0) {
        return table->err;
    }
    for (size_t i = 0; i < table->cells; i++) {
        size_t width = cli_text_width(sl_span_of(table->cell[i].text));
        size_t *widest = &widths[i % table->columns];
        *widest = width > *widest ? width : *widest;
    }
    for (size_t i = 0; i < table->cells; i++) {
        print_cell(table, i, widths[i % table->columns], terminal);
    }
    return 0;
}
