/*
 * The row of the finding service-mismatch.
 */

export const serviceMismatch = {
  severity: 'error',
  needs: ['call', 'peer', 'connections', 'other services'],
  title: 'the ends have different types of queue pair',
  why: 'The opcode of a packet names its transport service, and a queue pair of another service drops the packet (IBA 9.6.1).',
  advice: 'create both queue pairs with the same qp_type',
  libraryAdvice: 'create both queue pairs with the same method: pd.rcQp or pd.ucQp',
  statuses: { RETRY_EXC_ERR: 7 },
} as const
