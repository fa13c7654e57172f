/* Reciprocal rank fusion gives the published scores, and ties do not depend on chance. */
#include "common/fusion.h"
#include "tests/support/test.h"

#include <math.h>

static const struct sl_span vector[] = {{"a", 1}, {"b", 1}, {"c", 1}};
static const struct sl_span keyword[] = {{"c", 1}, {"d", 1}, {"a", 1}};

static void check_item(const struct sl_fused *item, const char *id, double score)
{
    CHECK(sl_span_is(item->id, id));
    CHECK(fabs(item->score - score) < 1e-12);
}

TEST(items_in_both_rankings_come_first)
{
    const struct sl_ranking rankings[] = {{vector, 3, 1}, {keyword, 3, 1}};
    struct sl_fused out[10];
    size_t len;
    CHECK_INT(sl_fuse(rankings, 2, SL_FUSION_K, out, 10, &len), 0);
    CHECK_INT(len, 4);
    check_item(&out[0], "a", 1.0 / 61 + 1.0 / 63); /* A tie with c; a appeared first. */
    check_item(&out[1], "c", 1.0 / 63 + 1.0 / 61);
    check_item(&out[2], "b", 1.0 / 62);
    check_item(&out[3], "d", 1.0 / 62);
    CHECK(out[3].ranking == 1 && out[3].index == 1);
    CHECK(out[1].ranking == 0 && out[1].index == 2);
}

TEST(weights_and_the_maximum_count)
{
    const struct sl_ranking rankings[] = {{vector, 3, 1}, {keyword, 3, 3}};
    struct sl_fused out[2];
    size_t len;
    CHECK_INT(sl_fuse(rankings, 2, 1, out, 2, &len), 0);
    CHECK_INT(len, 2);
    check_item(&out[0], "c", 1.0 / 4 + 3.0 / 2);
    check_item(&out[1], "a", 1.0 / 2 + 3.0 / 4);
}

TEST(a_repeated_id_counts_once_at_its_better_rank)
{
    const struct sl_span ids[] = {{"a", 1}, {"a", 1}, {"b", 1}};
    const struct sl_ranking rankings[] = {{ids, 3, 1}};
    struct sl_fused out[3];
    size_t len;
    CHECK_INT(sl_fuse(rankings, 1, SL_FUSION_K, out, 3, &len), 0);
    CHECK_INT(len, 2);
    check_item(&out[0], "a", 1.0 / 61);
    check_item(&out[1], "b", 1.0 / 63);
}

TEST(nothing_fuses_to_nothing)
{
    const struct sl_ranking rankings[] = {{NULL, 0, 1}, {NULL, 0, 1}};
    struct sl_fused out[1];
    size_t len = 7;
    CHECK_INT(sl_fuse(rankings, 2, SL_FUSION_K, out, 1, &len), 0);
    CHECK_INT(len, 0);
    CHECK_INT(sl_fuse(NULL, 0, SL_FUSION_K, out, 1, &len), 0);
    CHECK_INT(len, 0);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"items_in_both_rankings_come_first", items_in_both_rankings_come_first},
        {"weights_and_the_maximum_count", weights_and_the_maximum_count},
        {"a_repeated_id_counts_once_at_its_better_rank",
         a_repeated_id_counts_once_at_its_better_rank},
        {"nothing_fuses_to_nothing", nothing_fuses_to_nothing},
        {NULL, NULL},
    };
    return run_tests(cases, argc, argv);
}
