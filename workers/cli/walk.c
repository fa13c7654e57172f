/*
 * Walking a directory. Folders are entered in depth; each that lies on the way is known by device
 * and inode, so that a link back up is not followed round and round. A link is followed when what
 * it means lies below the root: a document store must not take in what only seems to be there.
 *
 * What fits the patterns and is no text that can be read is not passed over in silence: it becomes
 * an item with a reason. Nothing is opened here but folders: what stands behind a name may be a
 * pipe or a device, which would block or do something.
 */
#include "workers/cli/walk.h"

#include "common/chunk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEGMENT_MAX = 256, DEPTH_MAX = 200, DOC_ID_MAX = 512 };

/* --- patterns --- */

static bool segment_fits(const char *pattern, size_t pattern_len, const char *name, size_t name_len)
{
    char p[SEGMENT_MAX], n[SEGMENT_MAX];
    if (pattern_len >= SEGMENT_MAX || name_len >= SEGMENT_MAX) {
        return false;
    }
    memcpy(p, pattern, pattern_len);
    memcpy(n, name, name_len);
    p[pattern_len] = n[name_len] = '\0';
    return fnmatch(p, n, FNM_PERIOD) == 0;
}

/* Whether path fits, or (below) as a folder may hold a path that does. */
static bool fits(const char *pattern, const char *path, bool below)
{
    size_t pattern_len = strcspn(pattern, "/"), path_len = strcspn(path, "/");
    bool last = pattern[pattern_len] == '\0', ends = path[path_len] == '\0';
    if (pattern_len == 2 && strncmp(pattern, "**", 2) == 0) {
        if (!last && fits(pattern + 3, path, below)) {
            return true;
        }
        if (path[0] == '.') {
            return false;
        }
        return ends ? last || below : fits(pattern, path + path_len + 1, below);
    }
    if (!segment_fits(pattern, pattern_len, path, path_len)) {
        return false;
    }
    if (last || ends) {
        return ends && last != below;
    }
    return fits(pattern + pattern_len + 1, path + path_len + 1, below);
}

bool cli_path_fits(const char *pattern, const char *path)
{
    return fits(pattern, path, false);
}

/* --- walking --- */

struct folder {
    const struct folder *parent;
    dev_t device;
    ino_t inode;
    size_t depth;
};

struct walk {
    const struct cli_patterns *patterns;
    const char *given;   /* The root as the caller named it. */
    char root[PATH_MAX]; /* Resolved. */
    char path[PATH_MAX]; /* Of what is looked at, relative to root. */
    struct cli_files *files;
    int err;
};

static bool any_fits(const struct cli_list *patterns, const char *path, bool below)
{
    for (size_t i = 0; i < patterns->len; i++) {
        if (fits(patterns->items[i], path, below)) {
            return true;
        }
    }
    return false;
}

static bool excluded(const struct walk *walk)
{
    return any_fits(walk->patterns->exclude, walk->path, false);
}

static bool wanted(const struct walk *walk)
{
    return any_fits(walk->patterns->take, walk->path, false) && !excluded(walk);
}

/* Whether something below the folder may be wanted. */
static bool wanted_below(const struct walk *walk)
{
    return any_fits(walk->patterns->take, walk->path, true) && !excluded(walk);
}

static const char *check_name(const char *id)
{
    size_t len = strlen(id);
    return sl_utf8_valid(sl_span_of(id)) < len ? "its name is not UTF-8"
           : len > DOC_ID_MAX                  ? "its path is longer than 512 bytes"
                                               : NULL;
}

int cli_files_add(struct cli_files *files, const char *root, const char *id, const char *reason)
{
    if (files->len == CLI_FILES_MAX) {
        return -SL_ETOOBIG;
    }
    if (files->len == files->cap) {
        size_t cap = files->cap > 0 ? files->cap * 2 : 64;
        struct cli_file *items = realloc(files->items, cap * sizeof(*items));
        if (items == NULL) {
            return -SL_ENOMEM;
        }
        files->items = items;
        files->cap = cap;
    }
    struct cli_file file = {strdup(id), root, reason != NULL ? reason : check_name(id)};
    if (file.id == NULL) {
        return -SL_ENOMEM;
    }
    files->items[files->len++] = file;
    return 0;
}

static void add_file(struct walk *walk, const char *reason)
{
    int rv = cli_files_add(walk->files, walk->given, walk->path, reason);
    walk->err = walk->err != 0 ? walk->err : rv;
}

/* Whether the link leads to something below the root, or to the root itself. */
static bool stays_below(const struct walk *walk)
{
    char full[2 * PATH_MAX], resolved[PATH_MAX];
    size_t len = strlen(walk->root);
    snprintf(full, sizeof(full), "%s/%s", walk->root, walk->path);
    if (realpath(full, resolved) == NULL) {
        return false; /* It leads nowhere. */
    }
    return strncmp(resolved, walk->root, len) == 0 &&
           (resolved[len] == '/' || resolved[len] == '\0' || len == 1);
}

static bool on_the_way(const struct folder *folder, const struct stat *st)
{
    for (; folder != NULL; folder = folder->parent) {
        if (folder->device == st->st_dev && folder->inode == st->st_ino) {
            return true;
        }
    }
    return false;
}

static void walk_folder(struct walk *walk, int fd, const struct folder *folder);

static void enter(struct walk *walk, int parent_fd, const char *name, const struct stat *st,
                  const struct folder *parent)
{
    const struct folder folder = {parent, st->st_dev, st->st_ino, parent->depth + 1};
    if (on_the_way(parent, st)) {
        add_file(walk, "a link that leads round in a circle");
        return;
    }
    if (folder.depth > DEPTH_MAX) {
        add_file(walk, "the folder lies too deep");
        return;
    }
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        add_file(walk, "the folder cannot be read");
        return;
    }
    walk_folder(walk, fd, &folder);
}

const char *cli_not_a_file(unsigned mode)
{
    return S_ISREG(mode)                    ? NULL
           : S_ISFIFO(mode)                 ? "a named pipe, not a file"
           : S_ISSOCK(mode)                 ? "a socket, not a file"
           : S_ISCHR(mode) || S_ISBLK(mode) ? "a device, not a file"
           : S_ISDIR(mode)                  ? "a directory, not a file"
                                            : "not a file";
}

/* Where the link leads, into st; false: nowhere that is to be looked at. */
static bool follow(struct walk *walk, int fd, const char *name, struct stat *st)
{
    if (fstatat(fd, name, st, 0) != 0) {
        if (wanted(walk)) {
            add_file(walk, errno == ELOOP ? "a link that leads round in a circle"
                                          : "a link that leads nowhere");
        }
        return false;
    }
    if (!(S_ISDIR(st->st_mode) ? wanted_below(walk) : wanted(walk))) {
        return false;
    }
    if (!stays_below(walk)) {
        add_file(walk, "a link that leaves the directory");
        return false;
    }
    return true;
}

static void look_at(struct walk *walk, int fd, const char *name, const struct folder *folder)
{
    struct stat st;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        if (wanted(walk)) {
            add_file(walk, "is gone");
        }
        return;
    }
    if (S_ISLNK(st.st_mode) && !follow(walk, fd, name, &st)) {
        return;
    }
    if (S_ISDIR(st.st_mode)) {
        if (wanted_below(walk)) {
            enter(walk, fd, name, &st, folder);
        }
    } else if (wanted(walk)) {
        add_file(walk, cli_not_a_file(st.st_mode));
    }
}

/* Closes fd. */
static void walk_folder(struct walk *walk, int fd, const struct folder *folder)
{
    size_t len = strlen(walk->path);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        walk->err = -SL_ENOMEM;
        return;
    }
    const struct dirent *entry;
    while (walk->err == 0 && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (len + strlen(entry->d_name) + 2 > sizeof(walk->path)) {
            add_file(walk, "holds a path that is too long");
            break;
        }
        snprintf(walk->path + len, sizeof(walk->path) - len, "%s%s", len > 0 ? "/" : "",
                 entry->d_name);
        look_at(walk, fd, entry->d_name, folder);
        walk->path[len] = '\0';
    }
    closedir(dir);
}

int cli_walk(const char *root, const struct cli_patterns *patterns, struct cli_files *files)
{
    struct walk *walk = calloc(1, sizeof(*walk));
    if (walk == NULL) {
        return -SL_ENOMEM;
    }
    *walk = (struct walk){.patterns = patterns, .given = root, .files = files};
    struct stat st;
    int fd = -1;
    if (realpath(root, walk->root) != NULL) {
        fd = open(walk->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0 || fstat(fd, &st) != 0) {
        walk->err = errno == ENOENT ? -SL_ENOENT : errno == ENOTDIR ? -SL_EINVAL : -SL_EIO;
        if (fd >= 0) {
            close(fd);
        }
    } else {
        const struct folder folder = {NULL, st.st_dev, st.st_ino, 0};
        walk_folder(walk, fd, &folder);
    }
    int rv = walk->err;
    free(walk);
    return rv;
}

/* --- lists --- */

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct cli_file *)a)->id, ((const struct cli_file *)b)->id);
}

const struct cli_file *cli_files_sort(struct cli_files *files)
{
    if (files->len > 0) {
        qsort(files->items, files->len, sizeof(*files->items), by_id);
    }
    for (size_t i = 1; i < files->len; i++) {
        const struct cli_file *pair = &files->items[i - 1];
        if (by_id(&pair[0], &pair[1]) == 0 && pair[0].reason == NULL && pair[1].reason == NULL) {
            return pair;
        }
    }
    return NULL;
}

void cli_files_fini(struct cli_files *files)
{
    for (size_t i = 0; i < files->len; i++) {
        free(files->items[i].id);
    }
    free(files->items);
    *files = (struct cli_files){.items = NULL};
}
