"""Advertisements: lines that sell, and documents made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pangu_alpha.config_checks import require, require_share
from pangu_alpha.data.document import with_text
from pangu_alpha.data.lines import Lines
from pangu_alpha.data.rule import DROPPED, Outcome, changed, pieces

_SELLS = (
    "点击购买|立即购买|马上购买|立即抢购|限时抢购|限时优惠|限时特价|秒杀|优惠券|领券|满减|包邮|货到付款|厂家直销|批发价|特价促销|清仓|低至|折起|买一送一|"
    "免费领取|免费试用|免费试听|免费咨询|在线咨询|点击咨询|咨询热线|咨询电话|订购热线|服务热线|招商热线|加盟热线|诚招代理|招商加盟|加盟费|"
    "加微信|加我微信|微信号|添加微信|扫码关注|扫码添加|扫描二维码|长按二维码|关注公众号|加QQ|加群|QQ群|代开发票|代办证件|办证|贷款热线|无抵押|秒到账|"
    "点击下载|立即下载|下载APP|下载App|扫码下载|点击进入|点击链接|点此进入|博彩|娱乐城|真人娱乐|六合彩|彩票网|开户送|首充|返利|日赚|月入过万|兼职日结|"
    "减肥产品|丰胸|壮阳|增高|祛痘|祛斑|美白套餐|私人订制|特效药|包治|无效退款|专业治疗|整形医院|男科医院|妇科医院|试管婴儿|代孕|"
    "热销|爆款|新品上市|现货供应|欢迎选购|欢迎来电|欢迎订购|欢迎咨询|量大从优|联系客服|赞助商|广告投放|推广链接|本广告"
)
_CONTACT = r"(?i)1[3-9]\d{9}|400[- ]?\d{3}[- ]?\d{4}|0\d{2,3}-\d{7,8}|(qq|微信|wechat|vx)\s*[:：]?\s*[a-z0-9_-]{5,}|https?://|www\.|[￥¥]\s?\d"
_MARKED = r"^[\s【\[(（]*(广告|推广|赞助|AD|ad|Advertisement)[\s】\])）:：]|(【广告】|\[广告\]|（广告）|\(广告\))"


@dataclass(frozen=True)
class Advertisements:
    """Remove lines that sell, and drop documents of which they are more than `most`.

    A line sells when it is marked as an advertisement, holds two selling phrases, or one beside a telephone number, an
    account, an address or a price.  Measures their share of a document's lines.  Source: paper §3.1 (keywords of
    advertisements decide about documents); words and lines are ours.
    """

    name: ClassVar[str] = "advertisements"
    most: float = 0.3
    """Share of a document's lines; above it the document is dropped."""
    longest: int = 200
    """Characters; a longer line is text that happens to sell."""

    def __post_init__(self) -> None:
        require_share("most", self.most)
        require(self.longest >= 1, "longest", self.longest, "it must be 1 or more")

    def apply(self, batch: pa.RecordBatch) -> Outcome:
        """Changes texts, drops those that only sell."""
        lines = Lines.of(batch["text"])
        lengths = lines.lengths
        phrases = lines.counts(_SELLS)
        sells = ((phrases >= 2) | ((phrases == 1) & lines.matches(_CONTACT)) | lines.matches(_MARKED)) & (
            lengths <= self.longest
        )
        shares = lines.count(sells) / np.maximum(lines.count(lengths > 0), 1)
        values = pa.array(shares, pa.float64())
        if not sells.any():
            return changed(batch, batch, values)
        too_many = shares > self.most
        rows = batch.filter(pa.array(too_many))
        dropped = pa.record_batch(
            [rows["id"], rows["source"], pa.repeat(pa.scalar(self.name), rows.num_rows),
             values.filter(pa.array(too_many)), pa.repeat(pa.scalar(float(self.most)), rows.num_rows), rows["text"]],
            schema=DROPPED,
        )  # fmt: skip
        gone = sells & ~too_many[lines.parents]
        removed = pieces(self.name, batch, pa.array(lines.parents[gone]), lines.texts.filter(pa.array(gone)))
        stays = pa.array(~too_many)
        text = lines.without(sells, batch["text"])
        rest = changed(batch.filter(stays), with_text(batch, text).filter(stays), values.filter(stays), removed)
        return Outcome(rest.kept, pa.concat_batches([dropped, rest.dropped]), removed, values)
