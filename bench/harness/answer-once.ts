/*
 * The child's end of children.ts, for a process that executes one order: remains of an earlier order would change the
 * result.
 */
export const answerOnce = <Order>(execute: (order: Order) => Promise<object>): void => {
  process.on('message', async (order: Order) => {
    try {
      process.send?.(await execute(order))
    } catch (error) {
      process.send?.({ failed: (error as Error).message })
    }
    process.disconnect()
    process.exit()
  })
}
