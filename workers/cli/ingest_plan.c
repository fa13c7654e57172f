/*
 * From arguments to documents. A directory gives each file below it the name that it has there; a
 * file that is named itself has its base name, as if its folder had been named with a pattern for
 * it alone; standard input has the name that --id says.
 *
 * Two arguments may lead to the same name. Whichever came later would replace the other one's
 * document, and nobody would notice: so that is refused before anything is sent.
 */
#include "workers/cli/ingest_plan.h"

#include "common/chunk.h"
#include "common/codec.h"
#include "common/json.h"
#include "workers/cli/read.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SOURCE_MAX = 400, HOST_BYTES = 256, METADATA_MAX = 1 << 20 };

static int refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int refuse(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("sluice ingest: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return CLI_FAILED;
}

/* --- roots --- */

/* The root in the plan, or NULL: out of memory. Roots of files that are named one after another are
 * mostly the same. */
static const char *add_root(struct cli_plan *plan, const char *path, size_t len)
{
    for (size_t i = plan->root_count; i > 0; i--) {
        if (strlen(plan->roots[i - 1]) == len && memcmp(plan->roots[i - 1], path, len) == 0) {
            return plan->roots[i - 1];
        }
    }
    char **roots = realloc(plan->roots, (plan->root_count + 1) * sizeof(*roots));
    char *root = strndup(path, len);
    plan->roots = roots != NULL ? roots : plan->roots;
    if (roots == NULL || root == NULL) {
        free(root);
        return NULL;
    }
    roots[plan->root_count++] = root;
    return root;
}

static int add_file(struct cli_plan *plan, const char *path, unsigned mode)
{
    const char *slash = strrchr(path, '/');
    const char *root = slash == NULL   ? add_root(plan, ".", 1)
                       : slash == path ? add_root(plan, "/", 1)
                                       : add_root(plan, path, (size_t)(slash - path));
    return root == NULL ? -SL_ENOMEM
                        : cli_files_add(&plan->files, root, slash != NULL ? slash + 1 : path,
                                        cli_not_a_file(mode));
}

static int add_directory(struct cli_plan *plan, const char *path,
                         const struct cli_patterns *patterns)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    const char *root = add_root(plan, path, len);
    return root == NULL ? -SL_ENOMEM : cli_walk(root, patterns, &plan->files);
}

static int add_path(struct cli_plan *plan, const char *path, const struct cli_patterns *patterns)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return refuse("%s cannot be read: %s", path, strerror(errno));
    }
    int rv = S_ISDIR(st.st_mode) ? add_directory(plan, path, patterns)
                                 : add_file(plan, path, st.st_mode);
    if (rv == -SL_ETOOBIG) {
        return refuse("more than %d files: ingest its folders one by one", CLI_FILES_MAX);
    }
    if (rv != 0) {
        return refuse("%s cannot be read: %s", path,
                      rv == -SL_EIO ? "no permission" : sl_error_text(rv));
    }
    return CLI_GO_ON;
}

static int add_input(struct cli_plan *plan, const char *id)
{
    sl_buf_init(&plan->input, CLI_TEXT_ROOM);
    if (cli_read_stream(STDIN_FILENO, &plan->input, plan->input_why)) {
        plan->input_why[0] = '\0';
    }
    int rv = cli_files_add(&plan->files, NULL, id, NULL);
    return rv == 0 ? CLI_GO_ON : refuse("%s", sl_error_text(rv));
}

/* --- all of them --- */

static int check_names(struct cli_plan *plan)
{
    const struct cli_file *twice = cli_files_sort(&plan->files);
    if (twice == NULL) {
        return CLI_GO_ON;
    }
    char paths[2][PATH_MAX];
    for (size_t i = 0; i < 2; i++) {
        const char *root = twice[i].root;
        snprintf(paths[i], sizeof(paths[i]), "%s%s%s", root != NULL ? root : "",
                 root != NULL ? "/" : "", root != NULL ? twice[i].id : "standard input");
    }
    return refuse("%s and %s would both be the document %s: give a directory that holds both, or "
                  "ingest them into collections of their own",
                  paths[0], paths[1], twice->id);
}

static bool is_input(const char *word)
{
    return strcmp(word, "-") == 0;
}

static int check_input(const struct cli_list *words, const char *id)
{
    size_t inputs = 0;
    for (size_t i = 0; i < words->len; i++) {
        inputs += is_input(words->items[i]) ? 1 : 0;
    }
    if (inputs > 1) {
        return cli_usage_error("ingest", "- can be named once only");
    }
    if (inputs == 1 && id == NULL) {
        return cli_usage_error("ingest", "- is standard input: its document needs --id NAME");
    }
    if (inputs == 0 && id != NULL) {
        return cli_usage_error("ingest", "--id names the document of standard input, -");
    }
    return CLI_GO_ON;
}

int cli_plan_make(struct cli_plan *plan, const struct cli_list *words,
                  const struct cli_patterns *patterns, const char *input_id)
{
    *plan = (struct cli_plan){.roots = NULL};
    int code = check_input(words, input_id);
    for (size_t i = 0; i < words->len && code == CLI_GO_ON; i++) {
        code = is_input(words->items[i]) ? add_input(plan, input_id)
                                         : add_path(plan, words->items[i], patterns);
    }
    if (code == CLI_GO_ON && plan->files.len == 0) {
        const struct cli_list *take = patterns->take;
        code = refuse("no file in %s%s fits %s%s", words->items[0],
                      words->len > 1 ? " or the others" : "", take->items[0],
                      take->len > 1 ? " or the other patterns" : "");
    }
    return code == CLI_GO_ON ? check_names(plan) : code;
}

void cli_plan_fini(struct cli_plan *plan)
{
    cli_files_fini(&plan->files);
    for (size_t i = 0; i < plan->root_count; i++) {
        free(plan->roots[i]);
    }
    free(plan->roots);
    sl_buf_fini(&plan->input);
}

void cli_plan_put_source(const struct cli_plan *plan, struct sl_buf *out)
{
    char host[HOST_BYTES] = "";
    size_t begin = out->len;
    for (size_t i = 0; i < plan->root_count; i++) {
        char *path = realpath(plan->roots[i], NULL);
        if (out->len - begin > SOURCE_MAX) {
            free(path);
            sl_buf_append_text(out, ", ...");
            break;
        }
        sl_buf_append_text(out, i > 0 ? ", " : "");
        cli_put_name(out, path != NULL ? path : plan->roots[i]);
        free(path);
    }
    if (plan->root_count == 0) {
        sl_buf_append_text(out, "standard input");
    }
    if (gethostname(host, sizeof(host) - 1) == 0) {
        sl_buf_printf(out, " on %s", host);
    }
}

/* --- metadata --- */

static bool seen_before(const struct cli_list *pairs, size_t i, size_t key_len)
{
    for (size_t k = 0; k < i; k++) {
        if (strncmp(pairs->items[k], pairs->items[i], key_len + 1) == 0) {
            return true;
        }
    }
    return false;
}

/* As the workers will read it, so that what they would refuse is told here. */
static int check_metadata(struct sl_span metadata)
{
    const struct sl_document document = {.doc_id = SL_SPAN("x"),
                                         .text = SL_SPAN("x"),
                                         .metadata = metadata,
                                         .collection = SL_SPAN("default")};
    struct sl_document checked = {.doc_id = SL_SPAN("")};
    struct sl_fault fault = {{0}, {0}};
    struct sl_arena arena;
    struct sl_buf bytes;
    sl_buf_init(&bytes, 2 * METADATA_MAX);
    sl_arena_init(&arena, 8 * METADATA_MAX);
    sl_document_encode(&document, &bytes);
    int rv = sl_buf_error(&bytes);
    rv = rv != 0 ? rv : sl_document_decode(sl_buf_span(&bytes), false, &arena, &checked, &fault);
    sl_arena_fini(&arena);
    sl_buf_fini(&bytes);
    return rv == 0 ? CLI_GO_ON
                   : cli_usage_error("ingest", "--metadata: %s",
                                     fault.message[0] != '\0' ? fault.message : sl_error_text(rv));
}

int cli_metadata(const struct cli_list *pairs, struct sl_buf *out)
{
    struct sl_json_writer w = {.out = out};
    sl_buf_clear(out);
    sl_json_begin_object(&w);
    for (size_t i = 0; i < pairs->len; i++) {
        const char *pair = pairs->items[i];
        const size_t len = strcspn(pair, "=");
        if (len == 0 || pair[len] == '\0') {
            return cli_usage_error("ingest", "--metadata must be KEY=VALUE, not '%s'", pair);
        }
        if (sl_utf8_valid(sl_span_of(pair)) < strlen(pair)) {
            return cli_usage_error("ingest", "--metadata must be UTF-8");
        }
        if (seen_before(pairs, i, len)) {
            return cli_usage_error("ingest", "--metadata has the key '%.*s' twice", (int)len, pair);
        }
        sl_json_key_span(&w, (struct sl_span){pair, len});
        sl_json_put_string(&w, sl_span_of(pair + len + 1));
    }
    sl_json_end_object(&w);
    return sl_buf_error(out) == 0 ? check_metadata(sl_buf_span(out))
                                  : cli_usage_error("ingest", "--metadata is too long");
}
