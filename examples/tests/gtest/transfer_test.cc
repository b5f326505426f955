/* GoogleTest with userdma: g++ transfer_test.cc -lgtest -libverbs -lpthread */
#include <userdma_gtest.h>

#include "../transfer.h"

class Transfer : public testing::Test {
protected:
    void SetUp() override
    {
        USERDMA_REQUIRED();
        transfer = transfer_open(nullptr);
        ASSERT_NE(transfer, nullptr);
    }
    void TearDown() override
    {
        if (transfer)
            transfer_close(transfer);
    }
    struct transfer *transfer = nullptr;
};

TEST_F(Transfer, Reconnects)
{
    {
        userdma::Fault fault("qp=" + std::to_string(transfer_qp_num(transfer)) + ",drop=100%");
        EXPECT_EQ(transfer_write(transfer), IBV_WC_RETRY_EXC_ERR);
        EXPECT_TRUE(fault.wait(3, 10000));
    }
    EXPECT_EQ(transfer_write(transfer), IBV_WC_SUCCESS);
}

TEST_F(Transfer, SurvivesAStaleKey)
{
    userdma::Expect stale("stale-rkey");
    EXPECT_NE(transfer_write_stale(transfer), IBV_WC_SUCCESS);
    EXPECT_EQ(transfer_write(transfer), IBV_WC_SUCCESS);
}

/* Fails: the finding of the check. */
TEST_F(Transfer, DISABLED_WithAMistake)
{
    transfer_write_stale(transfer);
}

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    testing::UnitTest::GetInstance()->listeners().Append(new userdma::Findings);
    return RUN_ALL_TESTS();
}
