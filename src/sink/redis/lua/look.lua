-- What the fence holds, for a claim that may write. Changes nothing.
return {'held', held[1] or '', held[4] or ''}
