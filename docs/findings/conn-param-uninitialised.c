/* Only one field of struct rdma_conn_param is set. The bytes stand for what was on the stack before. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    struct rdma_conn_param parameters;
    memset(&parameters, FAULT_OR(0xff, 0), sizeof parameters);
    parameters.private_data = NULL;
    parameters.private_data_len = 0;
    check(rdma_connect(active.id, &parameters), "rdma_connect"); /* FAULT */
    destroy_cm_pair(&active, &passive);
    return 0;
}
