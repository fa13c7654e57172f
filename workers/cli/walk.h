/* Lists of files that become documents, and the walk through a directory that fills them. */
#ifndef SLUICE_WORKERS_CLI_WALK_H
#define SLUICE_WORKERS_CLI_WALK_H

#include "common/buf.h"
#include "workers/cli/cli.h"

struct cli_file {
    char *id;         /* The document's: its path below the root, with slashes, byte for byte. */
    const char *root; /* Borrowed. NULL: no file, its text is at hand. */
    const char
        *reason; /* Why it cannot be a document; NULL: nothing is known against it. Static. */
};

struct cli_files {
    struct cli_file *items;
    size_t len, cap;
};

enum { CLI_FILES_MAX = 1000000 };

struct cli_patterns {
    const struct cli_list *take, *exclude;
};

/* Whether a relative path fits: segments by the shell's rules (* ? [...]; a leading dot must be
 * written), and a segment ** stands for any number of folders. */
bool cli_path_fits(const char *pattern, const char *path);

/* Adds the files below root that fit; links are followed when they stay below root, and nothing but
 * folders is opened. A folder that cannot be read, a link that leaves root and what is no regular
 * file are items with their reasons. Borrows root. 0; -SL_ENOENT, -SL_EIO: root cannot be read;
 * -SL_EINVAL: it is no directory; -SL_ETOOBIG: more than CLI_FILES_MAX; -SL_ENOMEM. The caller
 * calls cli_files_fini on every path. */
int cli_walk(const char *root, const struct cli_patterns *patterns,
             struct cli_files *files) SL_CHECKED;
/* Copies id, borrows root and reason. 0, -SL_ETOOBIG, -SL_ENOMEM. */
int cli_files_add(struct cli_files *files, const char *root, const char *id,
                  const char *reason) SL_CHECKED;
/* By id. NULL, or the first of two neighbours that would be the same document. */
const struct cli_file *cli_files_sort(struct cli_files *files);
void cli_files_fini(struct cli_files *files);

/* Why something of this st_mode is no file: "a named pipe, not a file"; NULL when it is. */
const char *cli_not_a_file(unsigned mode);

#endif
