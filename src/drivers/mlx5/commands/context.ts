/*
 * Contexts that may give firmware commands (MLX5_IB_ALLOC_UCTX_DEVX). Each has a number, which Linux puts into its
 * commands.
 */
import type { CallContext, Context } from '../../../core/model.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { contextOf } from '../context.ts'
import { type Mlx5Soft, stateOf } from '../state.ts'

const LARGEST_UID = 0xffff

/** Throws CallError ENOMEM if all numbers are in use. */
export const openCommands = (call: CallContext): void => {
  const { uids } = stateOf(call)
  let uid = 1
  while (uids.has(uid)) uid++
  if (uid > LARGEST_UID)
    throw callError.ENOMEM`${the.method('device.open')}: all ${LARGEST_UID} contexts with firmware commands are in use`
  uids.add(uid)
  contextOf(call.context).uid = uid
}

export const closeCommands = (context: Context): void => {
  const state = contextOf(context)
  if (state.uid === undefined) return
  ;(context.device.state as Mlx5Soft).own?.uids.delete(state.uid)
  delete state.uid
}
