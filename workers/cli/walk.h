/* The files below a directory whose paths fit patterns. */
#ifndef SLUICE_WORKERS_CLI_WALK_H
#define SLUICE_WORKERS_CLI_WALK_H

#include "common/buf.h"

struct cli_file {
    char *path;         /* Relative to the root, with slashes. */
    const char *reason; /* Why it cannot be read; NULL: nothing is known against it. Static. */
};

struct cli_files {
    struct cli_file *items; /* Sorted by path. */
    size_t len, cap;
};

enum { CLI_FILES_MAX = 1000000 };

/* Whether a relative path fits: segments by the shell's rules (* ? [...]; a leading dot must be
 * written), and a segment ** stands for any number of folders. */
bool cli_path_fits(const char *pattern, const char *path);

/* Regular files; links are followed when they stay below root. A folder that cannot be read is an
 * item with its reason. 0; -SL_ENOENT, -SL_EIO: root cannot be read; -SL_EINVAL: it is no
 * directory; -SL_ETOOBIG: more than CLI_FILES_MAX; -SL_ENOMEM. The caller calls cli_files_fini on
 * every path. */
int cli_walk(const char *root, const char *const *patterns, size_t count,
             struct cli_files *ret) SL_CHECKED;
void cli_files_fini(struct cli_files *files);

/* The text of root/path, whole but for a byte order mark, into out (cleared first). NULL, or why it
 * is no document. Static. */
const char *cli_read_text(const char *root, const char *path, struct sl_buf *out);

#endif
