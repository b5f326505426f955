/*
 * What VitePress makes of code blocks: a diagram of one in the language `mermaid`; indented ones look as the others,
 * and scroll.
 */
export const renderCode = ({ renderer: { rules } }) => {
  const { fence } = rules
  rules.fence = (tokens, i, ...rest) =>
    tokens[i].info.trim() === 'mermaid'
      ? `<Diagram code="${encodeURIComponent(tokens[i].content)}" />`
      : fence(tokens, i, ...rest)
  rules.code_block = fence
}
