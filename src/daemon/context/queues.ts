/*
 * The completion queues of a context.
 */
import type { Context, CoreObject, FdObject } from '../../core/model.ts'

export const isCq = (object: CoreObject | undefined): object is CoreObject => object?.class.name === 'cq'

export const cqsOf = ({ handles: { slots } }: Context): CoreObject[] => slots.filter(isCq)

/** Those whose events go to a channel. */
export const cqsOfChannel = (context: Context, channel: FdObject): CoreObject[] =>
  cqsOf(context).filter(({ events }) => events?.route.channel === channel)
