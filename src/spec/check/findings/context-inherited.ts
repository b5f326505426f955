/*
 * The row of the finding context-inherited.
 */

export const contextInherited = {
  severity: 'error',
  needs: ['check', 'preload'],
  title: 'a child process uses queues of its parent',
  why: 'Queues are mapped memory of the process that opened the device. With adapters a child does not inherit these mappings (ibv_fork_init(3)), and crashes. With userdma both processes change the same rings.',
  advice: 'open the device and create queues in the process that uses them',
} as const
