/* Texts of documents from files. */
#ifndef SLUICE_WORKERS_CLI_READ_H
#define SLUICE_WORKERS_CLI_READ_H

#include "common/buf.h"

enum {
    CLI_TEXT_MAX = 16 << 20,
    CLI_TEXT_ROOM = CLI_TEXT_MAX + (128 << 10), /* For a buf: the limit and one read beyond it. */
    CLI_WHY_MAX = 192,
};

/* The text of root/path, whole but for a byte order mark of UTF-8, into out (cleared first). False:
 * it is no document, and why says it in one line. Blocks as long as the disk does; what is no
 * regular file is not opened. On any thread. */
bool cli_read_text(const char *root, const char *path, struct sl_buf *out,
                   char why[CLI_WHY_MAX]) SL_CHECKED;
/* The same of what can be read from a descriptor; blocks until its end. */
bool cli_read_stream(int fd, struct sl_buf *out, char why[CLI_WHY_MAX]) SL_CHECKED;

/* A name of the file system for people and accounts: bytes that are not UTF-8 as \xNN. Appended. */
void cli_put_name(struct sl_buf *out, const char *name);

#endif
