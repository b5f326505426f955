/* The private data of a request is longer than rdma_cm's port space TCP allows: 56 bytes. */
#include "cm.h"

int main(void)
{
    static struct cm_end active, passive;
    resolve(&active, &passive);
    static char data[95];
    struct rdma_conn_param parameters = {.private_data = data, .private_data_len = FAULT_OR(95, 56)};
    if (rdma_connect(active.id, &parameters)) /* FAULT */
        perror("rdma_connect");
    destroy_cm_pair(&active, &passive);
    return 0;
}
