/*
 * The row of the finding not-routed.
 */

export const notRouted = {
  severity: 'warning',
  needs: ['call', 'check', 'causes', 'packets', 'hop limits'],
  title: 'a path to another subnet has what no router forwards: RoCE v1, or hop_limit 0 or 1',
  why: 'Frames of RoCE v1 (ethertype 0x8915) have no IP header (IBA A16). A hop limit of 1 ends at the first router. Linux takes the hop limit of the route where it resolves the path: for connected queue pairs, and for address handles of rxe. Adapters whose address handles are made in user space (mlx5) send it as given, and so do queue pairs of firmware commands (DEVX). The finding is a note where the route takes its place. That the destination is in another subnet is known of routers of simulated links, and by the netmask of the interface that has the source address.',
} as const
