/*
 * What objects of verbs are in firmware commands, as Linux compares it with a command's number (devx_is_valid_obj_id).
 */
import type { CoreObject } from '../../../core/model.ts'
import type { CommandName } from '../../../spec/drivers/mlx5-firmware/commands.ts'

/** Which object a command is about: by the command that creates such objects, and its number. */
export interface Identity {
  readonly command: CommandName
  readonly number: number
}

/** Undefined: no command is about such objects. */
export const identityOf = ({ class: { name }, state }: CoreObject): Identity | undefined => {
  switch (name) {
    case 'cq':
      return { command: 'CREATE_CQ', number: (state as { readonly number: number }).number }
    case 'rc_qp':
    case 'uc_qp':
    case 'ud_qp':
    case 'xrc_ini_qp':
    case 'xrc_tgt_qp':
    case 'dci_qp':
      return { command: 'CREATE_QP', number: (state as { readonly qpn: number }).qpn }
    case 'dct_qp':
      return { command: 'CREATE_DCT', number: (state as { readonly qpn: number }).qpn }
    // shared receive queues of verbs are pools in an adapter
    case 'srq':
      return { command: 'CREATE_RMP', number: (state as { readonly number: number }).number }
    case 'xrc_srq':
      return { command: 'CREATE_XRC_SRQ', number: (state as { readonly number: number }).number }
    default:
      return undefined
  }
}
